"""MoLE for Python programs: typed clients of the coordinator, and the `mole` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mole.async_client import AsyncMole
    from mole.client import Mole
    from mole.errors import MoleAPIError, MoleClientError, MoleConnectionError
    from mole.frames import classify_frame
    from mole.results import ItemResult
    from mole.retry import Retry

_HOME = {
    "AsyncMole": "async_client",
    "ItemResult": "results",
    "Mole": "client",
    "MoleAPIError": "errors",
    "MoleClientError": "errors",
    "MoleConnectionError": "errors",
    "Retry": "retry",
    "classify_frame": "frames",
}
__all__ = [
    "AsyncMole",
    "ItemResult",
    "Mole",
    "MoleAPIError",
    "MoleClientError",
    "MoleConnectionError",
    "Retry",
    "classify_frame",
]


def __getattr__(name: str) -> Any:
    # Imported at the first use: `mole --help` needs neither httpx nor pydantic.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"mole.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
