"""The console's pages and assets, and the headers that keep foreign code out of them.

The pages hold no data: their scripts ask the API for it, with the caller's key where one is needed. So the
pages themselves need none. Every address in them is relative: they work below a proxy's path, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.asgi.security_headers import CSP_PAGES
from app.console.assets import assets

TEMPLATES = Path(__file__).parent / "templates"
SECURITY_HEADERS = {
    "Content-Security-Policy": f"{CSP_PAGES}; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""No text ever becomes markup; the other headers of pages are added to every answer."""
FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Page:
    """One page; its template is `{name}.html` and its script `{name}.js`."""

    name: str
    path: str
    title: str
    summary: str


PAGES = (
    Page("playground", "/", "Playground", "Classify a text and see the route that it takes."),
    Page("fleet", "/fleet", "Fleet", "Workers, models and tasks, and how they are right now."),
    Page("jobs", "/jobs", "Jobs", "Classify a whole file in the background."),
    Page("router", "/router", "Router", "Versions learned from feedback, and how good they are."),
    Page("traffic", "/traffic", "Traffic", "What was asked over the last hour, and how it went."),
)

router = APIRouter(include_in_schema=False)


@cache
def environment() -> Environment:
    """The templates; everything put into them is escaped."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def rendered(page: Page) -> bytes:
    """The page's HTML, which is the same for everybody."""
    template = environment().get_template(f"{page.name}.html")
    return template.render(page=page, pages=PAGES, assets=f"./assets/{assets().version}").encode()


def _endpoint(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def show(_request: Request) -> Response:
        headers = {**SECURITY_HEADERS, "Cache-Control": "no-cache"}
        return Response(rendered(page), headers=headers, media_type="text/html; charset=utf-8")

    return show


for _page in PAGES:
    router.add_api_route(_page.path, _endpoint(_page), methods=["GET", "HEAD"])


@router.api_route("/assets/{version}/{name}", methods=["GET", "HEAD"])
async def asset(request: Request) -> Response:
    """A script, a style or an image; of an older page's version the present one, not to be kept."""
    found = assets().files.get(request.path_params["name"])
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    body, media_type = found
    current = request.path_params["version"] == assets().version
    headers = {**SECURITY_HEADERS, "Cache-Control": FOR_GOOD if current else "no-store"}
    return Response(body, headers=headers, media_type=media_type)
