"""The coordinator application: `uvicorn app.main:app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from app.api import (
    classify,
    docs_page,
    errors,
    feedback,
    health,
    job_items,
    jobs,
    openapi,
    router_versions,
    stats,
    tasks,
    workers,
)
from app.asgi.access import Access
from app.asgi.application import Application
from app.asgi.cors import Cors
from app.asgi.envelope import Envelope
from app.asgi.intake import Intake
from app.console import pages
from app.facade import routes as facade
from app.facade.errors import OpenAIErrors
from app.services import audit, factory
from app.services.jobs import factory as jobs_factory
from app.services.runtime import LoadGating, MakeExperts, Runtime
from app.services.text_routes import ONE_TEXT_ROUTES
from app.settings import Settings
from moe_router import logs, tracing
from moe_router.drain import Drain

DESCRIPTION = "Classifies text in many languages: finds what is asked, and asks the expert that serves it."


def create_app(
    settings: Settings | None = None,
    *,
    load_gating: LoadGating = factory.load_gating,
    make_experts: MakeExperts = factory.make_experts,
) -> FastAPI:
    """Builds the application; the settings come from the environment at start where none are given."""
    drain = Drain()
    runtime = Runtime(
        settings, load_gating=load_gating, make_experts=make_experts, draining=lambda: drain.draining
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        settings = runtime.settings
        logs.configure(settings.log_format)
        audit.configure(settings.audit_log)
        tracing.configure(
            "mole-coordinator",
            exporter=settings.otel_exporter,
            endpoint=settings.otel_endpoint,
            disabled=settings.otel_disabled,
        )
        drain.install(runtime.settings.drain_timeout_s)
        try:
            await runtime.start()
            executor = job_items.ItemExecutor(runtime)
            async with jobs_factory.working(runtime, executor) as app.state.jobs:
                yield
        finally:
            await runtime.aclose()
            tracing.stop()
            drain.uninstall()

    app = Application(
        runtime=runtime,
        outer=[Middleware(OpenAIErrors)],
        layers=[
            Middleware(Envelope, metrics=runtime.metrics, drain=drain),
            Middleware(Cors, origins=lambda: runtime.settings.allowed_origins),
            Middleware(
                Access,
                keyring=lambda: runtime.keyring,
                metrics_open=lambda: not runtime.settings.metrics_require_key,
            ),
            Middleware(Intake, longest_body=lambda path: _longest_body(runtime.settings, path)),
        ],
        router=classify.router,
        title="MoLE",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for resource in (
        classify, facade, jobs, feedback, tasks, workers, stats, router_versions, health, docs_page, pages,
    ):  # fmt: skip
        app.include_router(resource.router)
    app.add_api_route("/metrics", stats.metrics, include_in_schema=False)
    errors.install(app)
    openapi.install(app)
    return app


def _longest_body(settings: Settings, path: str) -> int:
    return settings.one_text_bytes if path in ONE_TEXT_ROUTES else settings.max_body_bytes


app = create_app()
