"""Jobs on the wire, as the client sends and reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from moe_router.contracts import ClassifyAnswer, Problem

LINES = "application/x-ndjson"
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class JobResult:
    """What came of one item: an answer, or an error."""

    index: int
    """of the item in the upload, from 0"""
    answer: ClassifyAnswer | None
    error: Problem | None


def path_of(job_id: str, rest: str = "") -> str:
    """Where a job is."""
    return f"/jobs/{quote(job_id, safe='')}{rest}"


def to_chunks(items: Iterable[Mapping[str, Any]] | Iterable[bytes]) -> Iterator[bytes]:
    """JSON Lines in chunks of some size; bytes are lines already, in any pieces."""
    chunk = bytearray()
    for item in items:
        chunk += item if isinstance(item, bytes) else json.dumps(item, ensure_ascii=False).encode() + b"\n"
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def to_result(line: str) -> JobResult:
    """A line of a job's results.

    Raises:
        ValueError: it is none.
    """
    try:
        said = json.loads(line)
        index = said["index"]
        if not isinstance(index, int):
            raise ValueError("index is no whole number")
        if "error" in said:
            return JobResult(index, None, Problem.model_validate(said["error"]))
        return JobResult(index, ClassifyAnswer.model_validate(said), None)
    except (KeyError, TypeError, ValidationError) as error:
        raise ValueError("is no result of a job") from error
