"""A process of its own on the coordinator's database: runs one command, prints JSON or one line of error."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.services import audit, factory
from app.services.telemetry.metrics import Metrics
from app.settings import Settings
from moe_router.errors import MoleError

if TYPE_CHECKING:
    from app.storage.storage import Storage


MEND = "name the coordinator's own with MOLE_STATE_DIR, DATABASE_URL or --database"


def run(command: Callable[[Settings, Storage], Awaitable[Any]], *, makes: str | None = None) -> int:
    """Runs a command and prints what it returns; 0, or 1 with one line on standard error.

    Args:
        command: what to do.
        makes: what it makes, such as "the key": it may be the first to use the database, and standard error
            tells where that is. Without it a SQLite file that is not there is refused, not made: it would
            be of another folder than the coordinator's.
    """
    try:
        settings = Settings()
    except ValidationError as error:  # whose own text quotes the value, which may be a secret
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        print(f"the setting {name} is unusable: {first['msg']}", file=sys.stderr)
        return 1
    try:
        place, is_new = _place(settings.database)
        if is_new and makes is None:
            print(f"there is no database {place}; {MEND}", file=sys.stderr)
            return 1
        audit.configure(settings.audit_log)
        result = asyncio.run(_with_storage(command, settings))
    except (MoleError, OSError) as error:
        print(getattr(error, "detail", error), file=sys.stderr)
        return 1
    if makes is not None:
        new = f", which is new: a coordinator elsewhere does not know {makes}; {MEND}" if is_new else ""
        print(f"{makes} is in {place}{new}", file=sys.stderr)
    print(json.dumps(result, ensure_ascii=False, indent=2))
    return 0


def _place(database: str) -> tuple[str, bool]:
    """Where a database is, without a password, and whether it is a file that is still to be made.

    Raises:
        ConfigError: the URL is unusable.
    """
    from app.storage.engine import SQLITE, read_url

    url = read_url(database)
    if url.drivername != SQLITE or "uri" in url.query:
        return url.set(query={}).render_as_string(hide_password=True), False  # a query may hold one, too
    file = Path(str(url.database)).absolute()
    return str(file), not file.exists()


async def _with_storage(command: Callable[[Settings, Storage], Awaitable[Any]], settings: Settings) -> Any:
    storage = factory.make_storage(settings, Metrics())
    try:
        return await command(settings, storage)
    finally:
        await storage.database.aclose()
