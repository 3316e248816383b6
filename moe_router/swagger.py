"""`/docs` of both services: Swagger UI from files of this machine, so that the page runs no foreign code.

Only bytes and paths, for the services to serve; addresses are relative, to work below a proxy's path, too.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGE: Final = "fastapi_offline"
"""Brings Swagger UI's files; nothing of its code is used."""
FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
"""Media types of the files that the page may ask for below `/docs/`."""
CSP: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "img-src 'self' data:; style-src 'self' 'unsafe-inline'"
)
"""Swagger UI draws its icons as data and styles its parts in place; scripts come from here alone."""
SCRIPT: Final = b"""SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
});
"""
"""`/docs/start.js`: inline it would need a hole in the content security policy."""


def page(title: str) -> bytes:
    """The page `/docs`; `title` is ours, and holds no markup."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
""".encode()


def file(name: str) -> Path | None:
    """Where one of FILES lies; None for any other name, and where the package is not installed."""
    folder = _folder()
    return folder / name if name in FILES and folder is not None else None


@cache
def _folder() -> Path | None:
    found = find_spec(PACKAGE)  # without importing it
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "static"
