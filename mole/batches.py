"""Many items by way of `/classify/batch`: cut into batches, tried again one by one, kept in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any

from mole.calls import Item, batch, body, granted
from mole.errors import MoleAPIError, MoleConnectionError
from mole.exchange import Conversation, Pause, perform
from mole.results import ItemResult
from mole.retry import RETRIED_STATUSES, Patience, Retry

if TYPE_CHECKING:
    from moe_router.contracts import Problem

MOST_ITEMS = 100
"""of one batch, by the API"""
AHEAD = 4
"""How many batches for each in flight may be read ahead of the one that is handed out next."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive items."""

    number: int
    first: int
    """index of its first item"""
    items: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Common:
    """What a whole run of items shares; an item's own members come before it."""

    description: str | None = None
    fields: Mapping[str, str] | None = None
    options: Mapping[str, Any] | None = None

    def to_item(self, item: Item) -> dict[str, Any]:
        """The body of an item's request."""
        if isinstance(item, str):
            return body(item, self.description, self.fields, self.options or {})
        shared = body("", self.description, self.fields, self.options or {})
        own = {name: value for name, value in item.items() if value is not None}
        if "options" in shared and isinstance(own.get("options"), Mapping):
            own["options"] = {**shared["options"], **own["options"]}
        return {**shared, **own}


def size_of(batch_size: int, concurrency: int) -> int:
    """Items of one request."""
    return max(1, min(batch_size, concurrency, MOST_ITEMS))


def cut(items: Iterable[Item], size: int, common: Common) -> Iterator[Batch]:
    """Batches of `size` items, read from the iterable as they are wanted."""
    source = iter(items)
    number = 0
    while chunk := [common.to_item(item) for item in islice(source, size)]:
        yield Batch(number, number * size, chunk)
        number += 1


class Window:
    """Which batches are in flight, and whose results may be handed out.

    Keeps at most `concurrency` batches in flight and, where results are wanted in order, reads at most
    AHEAD times as many ahead of the slowest.
    """

    def __init__(self, concurrency: int, ordered: bool) -> None:
        self._concurrency = concurrency
        self._ordered = ordered
        self._in_flight = 0
        self._started = 0
        self._next = 0
        self._waiting: dict[int, list[ItemResult]] = {}

    @property
    def room(self) -> bool:
        """Whether another batch may be started."""
        ahead = self._started - self._next
        return self._in_flight < self._concurrency and ahead < AHEAD * self._concurrency

    def start(self) -> None:
        """A batch, the next in order, is on its way."""
        self._in_flight += 1
        self._started += 1

    def finish(self, number: int, results: list[ItemResult]) -> Iterator[ItemResult]:
        """Takes a batch's results; what may be handed out now."""
        self._in_flight -= 1
        if not self._ordered:
            self._next += 1
            yield from results
            return
        self._waiting[number] = results
        while (found := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            yield from found


def perform_batch(
    work: Batch, retry: Retry, url: str, patience: Patience | None = None
) -> Conversation[list[ItemResult]]:
    """Sends a batch; items that failed for a passing reason are sent again, the others are not.

    What is too large for one request is sent in halves; a single item that is has the problem as its error.

    Raises:
        MoleAPIError, MoleConnectionError: as `perform`, for the batch as a whole.
    """
    from pydantic import ValidationError

    patience = patience or Patience()
    found: dict[int, ItemResult] = {}
    left = {}
    for offset, item in enumerate(work.items):
        if _encodable(item):
            left[offset] = item
        else:
            found[offset] = ItemResult(work.first + offset, None, _unencodable())
    attempt = 1
    while left:
        answers = yield from _answers(list(left.values()), retry, url, patience)
        for offset, said in zip(list(left), answers, strict=True):
            try:
                found[offset] = _result(work.first + offset, said)
            except (ValidationError, TypeError) as error:
                raise MoleConnectionError(url, "something else answers there") from error
        pause = retry.pause(attempt)
        if pause is None:
            break
        left = {at: item for at, item in left.items() if _again(found[at], item, pause, patience)}
        if left:
            yield Pause(pause)
        attempt += 1
    return [found[offset] for offset in sorted(found)]


def _answers(
    items: list[dict[str, Any]], retry: Retry, url: str, patience: Patience
) -> Conversation[list[dict[str, Any]]]:
    try:
        return (yield from perform(batch(items, _longest(items)), retry, url, patience))
    except MoleAPIError as error:
        if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        if len(items) == 1:
            return [{"error": error.problem.model_dump()}]
    half = len(items) // 2
    first = yield from _answers(items[:half], retry, url, patience)
    return [*first, *(yield from _answers(items[half:], retry, url, patience))]


def _result(index: int, said: dict[str, Any]) -> ItemResult:
    from moe_router.contracts import ClassifyAnswer, Problem

    if "error" in said:
        return ItemResult(index, None, Problem.model_validate(said["error"]))
    return ItemResult(index, ClassifyAnswer.model_validate(said), None)


def _again(result: ItemResult, item: dict[str, Any], pause_s: float, patience: Patience) -> bool:
    """Whether an item failed for a passing reason, with time left."""
    if result.error is None or result.error.status not in RETRIED_STATUSES:
        return False
    return patience.allows(pause_s, _granted(item), result.error.status)


def _encodable(item: Any) -> bool:
    """Whether every string of it is Unicode: a lone surrogate would spoil the whole batch."""
    if isinstance(item, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in item) if not item.isascii() else True
    if isinstance(item, Mapping):
        return all(_encodable(name) and _encodable(value) for name, value in item.items())
    return all(map(_encodable, item)) if isinstance(item, list | tuple) else True


def _longest(items: Iterable[dict[str, Any]]) -> float | None:
    """The longest that an item may take, where each states it."""
    each = [_granted(item) for item in items]
    stated = [one for one in each if one is not None]
    return max(stated) if len(stated) == len(each) else None


def _granted(item: dict[str, Any]) -> float | None:
    """The time that an item states for itself; what is no number is for the service to refuse."""
    try:
        return granted(item.get("options") or {})
    except (AttributeError, TypeError, ValueError):
        return None


def _unencodable() -> Problem:
    from moe_router.contracts import Problem

    return Problem(
        type="/problems/bad-request",
        title="Bad request",
        status=400,
        detail="The item holds a lone surrogate, which is no Unicode text.",
    )
