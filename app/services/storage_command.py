"""A process of its own on the coordinator's database: runs one command, prints JSON or one line of error."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.services import audit, factory
from app.services.telemetry.metrics import Metrics
from app.settings import Settings
from moe_router.errors import MoleError

if TYPE_CHECKING:
    from app.storage.storage import Storage


def run(command: Callable[[Settings, Storage], Awaitable[Any]]) -> int:
    """Runs a command and prints what it returns; 0, or 1 with one line on standard error."""
    try:
        settings = Settings()
    except ValidationError as error:  # whose own text quotes the value, which may be a secret
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        print(f"the setting {name} is unusable: {first['msg']}", file=sys.stderr)
        return 1
    try:
        audit.configure(settings.audit_log)
        result = asyncio.run(_with_storage(command, settings))
    except (MoleError, OSError) as error:
        print(getattr(error, "detail", error), file=sys.stderr)
        return 1
    print(json.dumps(result, ensure_ascii=False, indent=2))
    return 0


async def _with_storage(command: Callable[[Settings, Storage], Awaitable[Any]], settings: Settings) -> Any:
    storage = factory.make_storage(settings, Metrics())
    try:
        return await command(settings, storage)
    finally:
        await storage.database.aclose()
