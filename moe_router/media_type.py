"""How a request says that its body is JSON; both services ask for it, by the same rule."""

from __future__ import annotations

import re
from typing import Final

JSON: Final = "application/json"
MEND: Final = f"with curl, add -H 'Content-Type: {JSON}'"
"""What a 415 advises: curl's -d alone declares a form."""

_OTHER_JSON = re.compile(r"application/\S+\+json")
"""JSON under another name (RFC 6839)."""


def media_type(content_type: str) -> str:
    """The type of a Content-Type header, without parameters; empty where nothing is said."""
    return content_type.partition(";")[0].strip().lower()


def is_json(declared: str) -> bool:
    """Whether a media type is JSON.

    A browser sends none of these for a page of another origin, unless CORS lets it; what is declared as
    nothing, as text or as a form may come from such a page, through a visitor who knows nothing of it.
    """
    return declared == JSON or _OTHER_JSON.fullmatch(declared) is not None
