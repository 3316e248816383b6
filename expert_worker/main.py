"""The worker application: `uvicorn expert_worker.main:app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from expert_worker import api, docs_page, openapi, problems
from expert_worker.envelope import Envelope, Exchange
from expert_worker.service import PoolFactory, Service, single_model_pool
from expert_worker.settings import Settings
from moe_router import logs, tracing
from moe_router.errors import MoleError, RequestError


def create_app(settings: Settings | None = None, build_pool: PoolFactory = single_model_pool) -> FastAPI:
    """Builds the application; the settings come from the environment at start where none are given."""
    service = Service(settings, build_pool)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        settings = service.settings
        logs.configure(settings.log_format)
        tracing.configure(
            "mole-worker",
            exporter=settings.otel_exporter,
            endpoint=settings.otel_endpoint,
            disabled=settings.otel_disabled,
        )
        service.drain.install(service.settings.drain_timeout_s)
        service.start()
        try:
            yield
        finally:
            await service.aclose()
            tracing.stop()
            service.drain.uninstall()

    app = FastAPI(
        title="MoLE expert worker",
        description="One base model with its adapters; asked by the coordinator.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(api.experts)
    app.include_router(api.health)
    app.include_router(docs_page.router)
    app.add_api_route("/metrics", metrics, include_in_schema=False)
    app.add_exception_handler(MoleError, on_mole_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_middleware(
        Envelope,
        metrics=service.metrics,
        drain=service.drain,
        max_body_bytes=lambda: service.settings.max_body_bytes,
    )
    openapi.install(app)
    return app


async def metrics(request: Request) -> Response:
    """What Prometheus scrapes."""
    service = cast(Service, request.app.state.service)
    return Response(service.render_metrics(), media_type=CONTENT_TYPE_LATEST)


async def on_mole_error(request: Request, error: Exception) -> Response:
    """Our own errors."""
    return problems.response(cast(MoleError, error), _id(request))


async def on_http_error(request: Request, error: Exception) -> Response:
    """The framework's errors: 404, 405."""
    known = cast(HTTPException, error)
    return problems.http_response(known.status_code, known.detail, known.headers, _id(request))


async def on_validation_error(request: Request, _error: Exception) -> Response:
    """The framework's own validation, of path and query."""
    return problems.response(RequestError("A parameter is invalid."), _id(request))


def _id(request: Request) -> str:
    return cast(Exchange, request.scope["mole"]).request_id


app = create_app()
