"""`python -m app.keys`: makes, lists and revokes API keys; prints JSON.

The `mole` command starts it as a process of its own: it needs the coordinator's settings and
database, which the command itself never loads. Settings are those of the coordinator's environment.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from app.services import audit, storage_command
from app.services.keyring import REFRESH_S
from app.storage.identity import key_identity, owner_name
from app.storage.key_records import DAY_S, DEFAULT_SCOPES, SCOPES, KeyRecord, day_of

if TYPE_CHECKING:
    from app.storage.api_keys import ApiKeys
    from app.storage.storage import Storage

KNOWN_AFTER_S = REFRESH_S + 0.5
"""By then every coordinator has read of a key's end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 1 with one line on standard error."""
    given = _parser().parse_args(arguments)
    return storage_command.run(
        lambda _settings, storage: _command(given, storage),
        makes="the key" if given.command == "create" else None,
    )


async def _command(given: argparse.Namespace, storage: Storage) -> Any:
    now = time.time()
    if given.command == "create":
        return await _create(given, storage.api_keys, now)
    if given.command == "list":
        shown = [key for key in await storage.api_keys.all() if given.all or key.usable(now)]
        return [_told(key, now) | {"owner": owner_name(await _caller(key, storage))} for key in shown]
    return await _revoke(given, storage, now)


async def _create(given: argparse.Namespace, keys: ApiKeys, now: float) -> dict[str, Any]:
    from app.storage.api_keys import NewKey

    days = given.expires_in_days
    wanted = NewKey(
        given.name,
        tuple(dict.fromkeys(given.scope or DEFAULT_SCOPES)),
        given.rate_per_minute,
        given.quota_per_day,
        None if days is None else now + days * DAY_S,
    )
    record, key = await keys.create(wanted, at=now)
    told = _told(record, now)
    audit.record(
        "key.created", actor=audit.command_actor(), key_id=record.id, name=record.name, scopes=record.scopes
    )
    return told | {"key": key}


async def _revoke(given: argparse.Namespace, storage: Storage, now: float) -> dict[str, Any]:
    keys = storage.api_keys
    record = await keys.revoke(given.id, at=now)
    audit.record("key.revoked", actor=audit.command_actor(), key_id=record.id, name=record.name)
    ended = await _end_jobs(record, storage, now)
    if given.forget:  # last: a key that is forgotten cannot be named again, should its jobs not have ended
        await keys.forget(given.id)
        audit.record("key.forgotten", actor=audit.command_actor(), key_id=record.id, name=record.name)
    return _told(record, now) | {"jobs_cancelled": ended}


async def _end_jobs(record: KeyRecord, storage: Storage, now: float) -> int:
    """Cancels the key's unfinished jobs, twice: until coordinators know of its end they take new ones."""
    owner = await _caller(record, storage)
    ended = await storage.jobs.cancel_all(owner, at=now)
    if record.revoked_at == now and record.may("jobs"):
        await asyncio.sleep(KNOWN_AFTER_S)
        ended += await storage.jobs.cancel_all(owner, at=now)
    if ended:
        audit.record("jobs.cancelled", actor=audit.command_actor(), key_id=record.id, jobs=ended)
    return ended


async def _caller(record: KeyRecord, storage: Storage) -> str:
    return await storage.callers.hash_of(key_identity(record.id))


def _told(record: KeyRecord, now: float) -> dict[str, Any]:
    """What may be shown of a key; its hash is nobody's business."""
    hidden = ("key_hash", "usage_day", "usage_count")
    told = {name: value for name, value in asdict(record).items() if name not in hidden}
    return told | {"used_today": record.used_on(day_of(now)), "usable": record.usable(now)}


def _number(kind: type[int] | type[float], least: int, most: int) -> Any:
    def read(given: str) -> float:
        value = kind(given)
        if not least <= value <= most:  # nor is NaN
            raise ValueError(given)
        return value

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.keys", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("create")
    making.add_argument("name")
    making.add_argument("--scope", action="append", choices=SCOPES)
    making.add_argument("--rate-per-minute", type=_number(int, 1, 10**6))
    making.add_argument("--quota-per-day", type=_number(int, 1, 10**9))
    making.add_argument("--expires-in-days", type=_number(float, 0, 36_500))
    commands.add_parser("list").add_argument("--all", action="store_true")
    ending = commands.add_parser("revoke")
    ending.add_argument("id")
    ending.add_argument("--forget", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
