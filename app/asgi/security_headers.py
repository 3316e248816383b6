"""Headers that keep foreign code out of pages, and answers out of foreign pages and caches."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from app.services.text_routes import TEXT_ROUTES
from moe_router import swagger

Header = tuple[bytes, bytes]

CSP_PAGES: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
CSP_ANSWERS: Final = "default-src 'none'; frame-ancestors 'none'"


def _headers(policy: str) -> tuple[Header, ...]:
    return (
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", policy.encode()),
    )


_PAGES, _DOCS = _headers(CSP_PAGES), _headers(swagger.CSP)
_ANSWERS = (*_headers(CSP_ANSWERS), (b"cache-control", b"no-store"))
_TEXTS = ((b"x-content-type-options", b"nosniff"), (b"content-security-policy", CSP_ANSWERS.encode()))
"""Of the 200 to a POST of a text, which must be JSON: no browser sends one for a page, and no cache keeps it.

RFC 9110, section 9.3.3, on caches. On a busy machine each header takes a hundredth of a short request's cost.
"""
_API = ("/api/", "/v1/", "/metrics", "/openapi.json")


def security_headers(method: str, path: str, status: int | None, given: Sequence[Header]) -> Sequence[Header]:
    """The headers to add to an answer.

    Args:
        method: of the request.
        path: of the request.
        status: of the answer.
        given: the headers that the answer has; what it sets itself stays as it is.
    """
    if method == "POST" and status == HTTPStatus.OK and path in TEXT_ROUTES:
        wanted: Sequence[Header] = _TEXTS
    elif path.startswith(_API):
        wanted = _ANSWERS
    else:
        wanted = _DOCS if path.startswith("/docs") else _PAGES
    # Nearly all answers have no more than their type and length.
    if len(given) > 2:
        names = {name.lower() for name, _ in given}
        wanted = [header for header in wanted if header[0] not in names]
    return wanted
