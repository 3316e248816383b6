"""Jobs on the wire, as the clients send and read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from mole.errors import MoleConnectionError
from mole.results import ItemResult

LINES = "application/x-ndjson"
CHUNK_BYTES = 64 * 1024


def path_of(job_id: str, rest: str = "") -> str:
    """Where a job is."""
    return f"/jobs/{quote(job_id, safe='')}{rest}"


def to_chunks(items: Iterable[str | Mapping[str, Any]] | Iterable[bytes]) -> Iterator[bytes]:
    """JSON Lines in chunks of some size; bytes are lines already, in any pieces."""
    chunk = bytearray()
    for item in items:
        chunk += item if isinstance(item, bytes) else _line(item)
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def check_lines(status: int, content_type: str, url: str) -> None:
    """Whether an answer that is no error holds JSON Lines.

    Raises:
        MoleConnectionError: it is another page, or leads to one.
    """
    if status != HTTPStatus.OK or content_type.partition(";")[0].strip().lower() != LINES:
        raise MoleConnectionError(url, f"something else answers there (HTTP {status})")


class Lines:
    """Lines out of pieces of bytes. Only a line feed ends one: JSON may hold U+2028 and its like."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, piece: bytes) -> list[str]:
        """The lines that a piece ends."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]

    def end(self) -> list[str]:
        """What is left."""
        return [self._rest.decode("utf-8", "replace")] if self._rest else []


def to_result(line: str) -> ItemResult:
    """A line of a job's results.

    Raises:
        ValueError: it is none.
    """
    from pydantic import ValidationError

    from moe_router.contracts import ClassifyAnswer, Problem

    try:
        said = json.loads(line)
        index = said["index"]
        if not isinstance(index, int):
            raise ValueError("index is no whole number")
        if "error" in said:
            return ItemResult(index, None, Problem.model_validate(said["error"]))
        return ItemResult(index, ClassifyAnswer.model_validate(said), None)
    except (KeyError, TypeError, ValidationError) as error:
        raise ValueError("is no result of a job") from error


def _line(item: str | Mapping[str, Any]) -> bytes:
    body = {"text": item} if isinstance(item, str) else dict(item)
    return json.dumps(body, ensure_ascii=False).encode() + b"\n"
