"""`/docs`: Swagger UI, its files served from here, as at the coordinator."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from moe_router import swagger

router = APIRouter(include_in_schema=False)
HEADERS = {
    "Content-Security-Policy": swagger.CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
PAGE = swagger.page("MoLE: expert worker API")


@router.get("/docs")
async def page(_request: Request) -> Response:
    """The page; what it needs is under `/docs/`."""
    return Response(PAGE, headers=HEADERS, media_type="text/html; charset=utf-8")


@router.get("/docs/start.js")
async def start(_request: Request) -> Response:
    """Starts Swagger UI."""
    return Response(swagger.SCRIPT, media_type="text/javascript")


@router.get("/docs/{name}")
async def file(request: Request) -> Response:
    """One of Swagger UI's files."""
    name = request.path_params["name"]
    found = swagger.file(name)
    if found is None:
        raise HTTPException(404)
    return FileResponse(found, media_type=swagger.FILES[name])
