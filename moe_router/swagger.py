"""`/docs`: Swagger UI, its files served from here, so that the page runs no foreign code."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

router = APIRouter(include_in_schema=False)

PACKAGE = "fastapi_offline"
"""Brings Swagger UI's files; nothing of its code is used."""
FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}
SCRIPT = b"""SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
});
"""
PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MoLE: API</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""


@router.get("/docs")
async def page(_request: Request) -> Response:
    """The page; what it needs is under `/docs/`."""
    return Response(PAGE, media_type="text/html; charset=utf-8")


@router.get("/docs/start.js")
async def start(_request: Request) -> Response:
    """What inline would need a hole in the content security policy."""
    return Response(SCRIPT, media_type="text/javascript")


@router.get("/docs/{name}")
async def file(request: Request) -> Response:
    """One of Swagger UI's files."""
    name = request.path_params["name"]
    folder = _folder()
    if name not in FILES or folder is None:
        raise HTTPException(404)
    return FileResponse(folder / name, media_type=FILES[name])


@cache
def _folder() -> Path | None:
    found = find_spec(PACKAGE)  # without importing it
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "static"
