"""Which judged decisions teach, and which judge: what judges never teaches, in this run or any other.

By a hash, so that the next run holds out the same: whole callers where at least three of them judge, else
requests of every caller. Callers cannot choose by the names of their requests where these fall: callers
are known by hashes that are keyed with a secret of the database, and these are the key for requests.
Callers come and go, and so one way takes the other's place: a decision stays on the side where the first
run after it put it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moe_router.training.feedback.replay import Replay

Way = Literal["caller", "request"]
Run = tuple[float, str | None]
"""When a version was stored, in Unix seconds, and by which way its run held out, if that is known."""

HELD_OUT = 0.25
JUDGES = 3
"""So many callers judge at least where whole callers are held out: none decides alone, and of two who
disagree nobody can tell which one is odd."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a replay."""

    taught: list[int]
    held: list[int]
    way: Way
    """of decisions that no run has seen yet"""


def hold_out(replay: Replay, runs: Sequence[Run] = ()) -> Split:
    """Splits the rows.

    Args:
        replay: judged decisions.
        runs: of the versions stored so far. What one may have learned from that does not tell its way
            never judges.
    """
    callers = set(replay.caller)
    judges = {caller for caller in callers if _falls(caller)}
    # Of a few callers most may fall among the judges by chance, and hardly anybody would be left to teach.
    way: Way = "caller" if JUDGES <= len(judges) <= len(callers) / 2 else "request"
    past = sorted(runs, key=lambda run: run[0])
    taught: list[int] = []
    held: list[int] = []
    for row in range(len(replay)):
        decided, caller = float(replay.decided_at[row]), replay.caller[row]
        own = next((found for at, found in past if at >= decided), way)
        judging = own == "request" and _falls(replay.request_id[row], caller)
        judging |= own == "caller" and caller in judges
        (held if judging else taught).append(row)
    return Split(taught, held, way)


def _falls(name: str, key: str = "") -> bool:
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=key.encode()[: hashlib.blake2b.MAX_KEY_SIZE])
    return int.from_bytes(digest.digest()) < HELD_OUT * 2**64
