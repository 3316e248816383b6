"""MoLE for Python programs: a typed client of the coordinator, and the `mole` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mole.client import Mole, MoleAPIError, MoleClientError, MoleConnectionError
    from mole.jobs import JobResult

__all__ = ["JobResult", "Mole", "MoleAPIError", "MoleClientError", "MoleConnectionError"]


def __getattr__(name: str) -> Any:
    # The client pulls in httpx and pydantic; `mole --help` needs neither.
    if name in __all__:
        from mole import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
