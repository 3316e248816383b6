"""A waiting room in front of something scarce, fair between callers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Generic, TypeVar

from moe_router.errors import MoleError, OverloadedError

T = TypeVar("T")


class Wait(Enum):
    """Why a `take` takes nothing now."""

    FULL = "for nobody who wants the same is anything free"
    ENOUGH = "the caller holds all that one may"


@dataclass(slots=True, eq=False)
class _Waiter(Generic[T]):
    number: int
    want: Hashable
    take: Callable[[], T | Wait]
    granted: asyncio.Future[T]


class _Queue(Generic[T]):
    """One caller's waiters, in a line for each thing that is wanted; no line is empty."""

    def __init__(self) -> None:
        self.lines: dict[Hashable, deque[_Waiter[T]]] = {}
        self.size = 0

    def heads(self) -> list[_Waiter[T]]:
        """The first of each line, who came first of all first."""
        heads = [line[0] for line in self.lines.values()]
        if len(heads) > 1:
            heads.sort(key=lambda waiter: waiter.number)
        return heads

    def newest(self) -> _Waiter[T]:
        """Who came last."""
        return max((line[-1] for line in self.lines.values()), key=lambda waiter: waiter.number)

    def add(self, waiter: _Waiter[T]) -> None:
        """Puts one at the end of its line."""
        self.lines.setdefault(waiter.want, deque()).append(waiter)
        self.size += 1

    def remove(self, waiter: _Waiter[T]) -> bool:
        """Takes one out; False where it has gone already."""
        line = self.lines.get(waiter.want, ())
        if waiter not in line:
            return False
        self.lines[waiter.want].remove(waiter)
        if not line:
            del self.lines[waiter.want]
        self.size -= 1
        return True


class WaitingRoom(Generic[T]):
    """Grants what gets free to the caller who holds least of it, the longest unserved first.

    So one caller's thousand waiting requests delay another's single one by no more than what is under way.
    Of one caller's requests the first comes first, but none waits for another that wants something else.
    Used from one event loop.

    Args:
        max_waiting: bound on those who wait. In a full room the caller who has most waiting loses its newest.
        give_back: undoes a caller's grant that was cancelled before it could be used.
        full: whether nothing can be granted to anybody now; asked whenever one leaves, so it must be cheap.
    """

    def __init__(
        self, max_waiting: int, give_back: Callable[[T, str], None], full: Callable[[], bool]
    ) -> None:
        self._max_waiting = max_waiting
        self._give_back = give_back
        self._full = full
        self._queues: OrderedDict[str, _Queue[T]] = OrderedDict()  # the longest unserved first
        self._held: dict[str, int] = {}
        self._numbers = count()
        self.waiting = 0

    @property
    def busy(self) -> bool:
        """Whether something is granted or waited for."""
        return bool(self._held or self._queues)

    def held(self, caller: str) -> int:
        """What the caller has been granted and not given back."""
        return self._held.get(caller, 0)

    async def enter(self, caller: str, take: Callable[[], T | Wait], want: Hashable = None) -> T:
        """Waits for a grant; `leave` ends it.

        Args:
            caller: whose request it is.
            take: takes what is wanted, or says why it must wait; raises a MoleError where waiting makes no
                sense.
            want: what is wanted. Where it is the same, all can be given the same.

        Raises:
            OverloadedError: the room is full.
            MoleError: what `take` raises.
        """
        taken = self.try_enter(caller, take)
        return taken if taken is not None else await self.wait(caller, take, want)

    async def wait(self, caller: str, take: Callable[[], T | Wait], want: Hashable = None) -> T:
        """The same after a `try_enter` in this turn of the event loop that found nothing.

        Raises:
            OverloadedError: the room is full.
            MoleError: what `take` raises.
        """
        others = bool(self._queues)
        waiter = _Waiter(next(self._numbers), want, take, asyncio.get_running_loop().create_future())
        self._enqueue(caller, waiter)
        if others and not self._full():
            self._let_in()
        elif others:
            self._settle(caller, waiter)  # its own wait may make no sense
        try:
            granted: T = await waiter.granted
            return granted
        except asyncio.CancelledError:
            self._withdraw(caller, waiter)
            raise

    def try_enter(self, caller: str, take: Callable[[], T | Wait]) -> T | None:
        """The same without waiting: None where it would have to wait.

        Raises:
            MoleError: what `take` raises.
        """
        if self._queues:  # nobody is overtaken
            return None
        taken = take()
        if isinstance(taken, Wait):
            return None
        self._held[caller] = self._held.get(caller, 0) + 1
        return taken

    def leave(self, caller: str) -> None:
        """The caller has given back what it was granted; the next is let in."""
        left = self._held[caller] - 1
        if left > 0:
            self._held[caller] = left
        else:
            del self._held[caller]
        if self._queues:
            self._let_in()

    def poke(self) -> None:
        """Something is other than it was: grants what can be granted, ends the waits that make no sense."""
        fruitless: set[Hashable] = set()
        while self._settle_one(fruitless):
            pass

    def _let_in(self) -> None:
        """Something may have got free."""
        fruitless: set[Hashable] = set()
        while not self._full() and self._settle_one(fruitless):
            pass

    def _settle_one(self, fruitless: set[Hashable]) -> bool:
        """Ends the wait of the first whose wait can end; `fruitless` are wants that nothing is free for."""
        for caller in self._in_turn():
            for waiter in self._queues[caller].heads():
                if waiter.want in fruitless:
                    continue
                found = self._settle(caller, waiter)
                if found is None:
                    return True
                if found is Wait.FULL:
                    fruitless.add(waiter.want)
        return False

    def _in_turn(self) -> Iterator[str]:
        """Those who wait, who holds least first; most hold nothing, so the first is found at once."""
        yield from (caller for caller in self._queues if caller not in self._held)
        holding = [caller for caller in self._queues if caller in self._held]
        yield from sorted(holding, key=self._held.__getitem__)  # stable: order of the dict

    def _settle(self, caller: str, waiter: _Waiter[T]) -> Wait | None:
        """Ends a wait that can end; else why it cannot."""
        if waiter.granted.done():  # cancelled, and not yet run to leave the queue itself
            self._remove(caller, waiter)
            return None
        try:
            taken = waiter.take()
        except MoleError as error:
            waiter.granted.set_exception(error)
        else:
            if isinstance(taken, Wait):
                return taken
            self._held[caller] = self._held.get(caller, 0) + 1
            waiter.granted.set_result(taken)
        self._remove(caller, waiter)
        if caller in self._queues:
            self._queues.move_to_end(caller)
        return None

    def _enqueue(self, caller: str, waiter: _Waiter[T]) -> None:
        own = self._queues.get(caller)
        if self.waiting >= self._max_waiting:
            greediest = max(self._queues, key=lambda name: self._queues[name].size)
            full = OverloadedError(f"{self.waiting} requests are waiting already.")
            if self._queues[greediest].size <= (own.size if own is not None else 0) + 1:
                raise full
            newest = self._queues[greediest].newest()
            if not newest.granted.done():
                newest.granted.set_exception(full)
            self._remove(greediest, newest)
        if own is None:
            own = self._queues[caller] = _Queue()
        own.add(waiter)
        self.waiting += 1

    def _withdraw(self, caller: str, waiter: _Waiter[T]) -> None:
        granted = waiter.granted
        if not granted.done() or granted.cancelled():
            self._remove(caller, waiter)
        elif granted.exception() is None:
            self._give_back(granted.result(), caller)
            self.leave(caller)

    def _remove(self, caller: str, waiter: _Waiter[T]) -> None:
        queue = self._queues.get(caller)
        if queue is None or not queue.remove(waiter):
            return
        self.waiting -= 1
        if not queue.size:
            del self._queues[caller]


class FairGate:
    """So many at a time, fair between callers."""

    def __init__(self, places: int, max_waiting: int) -> None:
        self._free = places
        self._room: WaitingRoom[bool] = WaitingRoom(max_waiting, self._give_back, lambda: not self._free)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._room.waiting

    @asynccontextmanager
    async def place(self, caller: str) -> AsyncIterator[None]:
        """Holds a place while the block runs.

        Raises:
            OverloadedError: too many wait.
        """
        await self._room.enter(caller, self._take)
        try:
            yield
        finally:
            self._free += 1
            self._room.leave(caller)

    def _take(self) -> bool | Wait:
        if not self._free:
            return Wait.FULL
        self._free -= 1
        return True

    def _give_back(self, _place: bool, _caller: str) -> None:
        self._free += 1
