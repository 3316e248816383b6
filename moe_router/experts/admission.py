"""Who may wait in a bounded queue: fair between callers, and by how much each request holds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from moe_router.errors import OverloadedError

ResultT = TypeVar("ResultT")

JOBS_PER_PLACE = 16
"""A request counts once for each so many jobs: what waits is bounded also where texts are long."""


class Place(Generic[ResultT]):
    """A request's place in the queue, from its admission until the last of its jobs is in a batch.

    Attributes:
        caller: whose it is.
        jobs: how many it has; None before they are made.
        waiting: how many of them are in no batch yet.
        begun: whether one of them is, or was.
        weight: for how many it counts; 0 once it does no more.
    """

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.jobs: int | None = None
        self.waiting = 0
        self.begun = False
        self.weight = 1
        self._answer: asyncio.Future[list[ResultT]] | None = asyncio.get_running_loop().create_future()
        self._results: dict[int, ResultT] = {}

    @property
    def settled(self) -> bool:
        """Whether nothing more is wanted of it."""
        return self._answer is None or self._answer.done()

    @property
    def answer(self) -> asyncio.Future[list[ResultT]]:
        """All results, or the first failure; until `forget`."""
        assert self._answer is not None  # noqa: S101  whoever holds the place asks before
        return self._answer

    def take(self, index: int, result: ResultT | BaseException) -> None:
        """Takes one job's result; the answer is there when it was the last."""
        if self._answer is None or self._answer.done():
            return
        if isinstance(result, BaseException):
            self._answer.set_exception(result)
            return
        self._results[index] = result
        if len(self._results) == self.jobs:
            self._answer.set_result([self._results[i] for i in range(self.jobs)])

    def refuse(self, error: BaseException) -> None:
        """Ends the wait."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def forget(self) -> None:
        """Lets the answer go: an error's trace leads back to this place, and would make a ring with it."""
        answer, self._answer = self._answer, None
        if answer is not None and not answer.cancel() and not answer.cancelled():
            answer.exception()  # whoever left early does not want it: asyncio need not warn of it


class _Holder(Generic[ResultT]):
    """What one caller has in the queue, who came last at the end."""

    def __init__(self) -> None:
        self.weight = 0
        self.places: OrderedDict[Place[ResultT], None] = OrderedDict()

    def newest_first(self) -> Iterator[Place[ResultT]]:
        """Those of which no job has been in a batch: nothing was done for them in vain."""
        return (place for place in reversed(self.places) if not place.begun)


class Admission(Generic[ResultT]):
    """Counts the places of a queue.

    In a full one the caller who holds most loses its newest place to one who would hold less, so that a few
    callers cannot keep all others out. For requests of many jobs it is full sooner: a quarter is for others.

    Args:
        bound: on the sum of the weights.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._holders: dict[str, _Holder[ResultT]] = {}
        self.held = 0

    def enter(self, caller: str) -> Place[ResultT]:
        """A place of the weight 1.

        Raises:
            OverloadedError: there is none for this caller.
        """
        if self.held >= self._bound:
            self._make_room(caller, 1, self._bound)
        place: Place[ResultT] = Place(caller)
        holder = self._holders.get(caller)
        if holder is None:
            holder = self._holders[caller] = _Holder()
        holder.places[place] = None
        holder.weight += 1
        self.held += 1
        return place

    def grow(self, place: Place[ResultT], jobs: int) -> None:
        """Weighs a place by its jobs, at most as half of the queue: so a request that is alone always fits.

        Raises:
            OverloadedError: there is no room; the place still counts as before.
        """
        more = min(-(-jobs // JOBS_PER_PLACE), max(1, self._bound // 2)) - place.weight
        if more <= 0:
            return
        bound = self._bound - self._bound // 4
        if self.held + more > bound:
            self._make_room(place.caller, more, bound)
        place.weight += more
        self._holders[place.caller].weight += more
        self.held += more

    def leave(self, place: Place[ResultT]) -> None:
        """The place counts no more; harmless where it does not already."""
        if not place.weight:
            return
        holder = self._holders[place.caller]
        del holder.places[place]
        holder.weight -= place.weight
        self.held -= place.weight
        place.weight = 0
        if not holder.places:
            del self._holders[place.caller]

    def _make_room(self, caller: str, more: int, bound: int) -> None:
        """Refuses as many as must go, the newest of who then holds most; nobody where that would not do."""
        full = f"{self.held} requests are waiting for this expert's model."
        own = self._holders.get(caller)
        wanted = more + (0 if own is None else own.weight)
        weights = {name: holder.weight for name, holder in self._holders.items() if holder.weight > wanted}
        newest = {name: self._holders[name].newest_first() for name in weights}
        left = self.held
        victims: list[Place[ResultT]] = []
        while left + more > bound:
            most = max(weights, key=weights.__getitem__, default=None)
            if most is None or weights[most] <= wanted:
                raise OverloadedError(full)
            victim = next(newest[most], None)
            if victim is None:
                del weights[most]
                continue
            victims.append(victim)
            weights[most] -= victim.weight
            left -= victim.weight
        for victim in victims:
            victim.refuse(OverloadedError(full))
            self.leave(victim)
