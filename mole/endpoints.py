"""The methods that both clients have, each written once: a call, and who carries it out.

`Mole.tasks()` returns the tasks, `AsyncMole.tasks()` something to await for them; both are the one
function in `mole.calls`, with its signature and its docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property, update_wrapper
from inspect import Signature, signature
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from mole import calls
from mole.batches import Batch, Common, perform_batch
from mole.calls import Call, Item
from mole.exchange import Conversation, perform
from mole.results import ItemResult
from mole.retry import Retry

P = ParamSpec("P")
T = TypeVar("T")


class Blocking(Protocol):
    """A client whose methods return the result."""

    base_url: str
    retry: Retry

    def run(self, conversation: Conversation[T]) -> T:
        """Carries a conversation out."""


class Awaitable(Protocol):
    """A client whose methods return something to await."""

    base_url: str
    retry: Retry

    async def run(self, conversation: Conversation[T]) -> T:
        """Carries a conversation out."""


class Endpoint(Generic[P, T]):
    """A method of either client."""

    def __init__(
        self, begin: Callable[P, Callable[[Retry, str], Conversation[T]]], like: Any, answer: str
    ) -> None:
        self._begin = begin
        self._like = like
        self._answer = answer
        self.__doc__ = like.__doc__

    @cached_property
    def _signature(self) -> Signature:
        """As of `like`, but for what comes back: what is called is told by help() and by notebooks."""
        return signature(self._like).replace(return_annotation=self._answer)

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Awaitable, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, client: Any, owner: type) -> Any:
        """The method bound to a client."""
        if client is None:
            return self

        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.run(self._begin(*args, **kwargs)(client.retry, client.base_url))

        update_wrapper(bound, self._like)
        bound.__signature__ = self._signature  # type: ignore[attr-defined]
        return bound


def _of(build: Callable[P, Call[T]]) -> Endpoint[P, T]:
    def begin(*args: P.args, **kwargs: P.kwargs) -> Callable[[Retry, str], Conversation[T]]:
        call = build(*args, **kwargs)
        return lambda retry, url: perform(call, retry, url)

    answer = str(build.__annotations__["return"]).removeprefix("Call[").removesuffix("]")
    return Endpoint(begin, build, answer)


def classify_batch(
    items: Sequence[Item],
    description: str | None = None,
    *,
    fields: Mapping[str, str] | None = None,
    **options: Any,
) -> Callable[[Retry, str], Conversation[list[ItemResult]]]:
    """Up to 100 items by one request; each has its answer or its error, in order.

    Items that failed for a passing reason (429, 502, 503, 504) are tried again by themselves.

    Args:
        items: Texts, or bodies of `classify` requests, whose members come before those given here.
        description: What to find out.
        fields: Values for the template's further names.
        **options: As of `classify`.

    Raises:
        MoleAPIError: the batch as a whole was refused.
        MoleConnectionError: the coordinator did not answer.
    """
    common = Common(description, fields, options)
    work = Batch(0, 0, [common.to_item(item) for item in items])
    return lambda retry, url: perform_batch(work, retry, url)


class Endpoints:
    """What `Mole` and `AsyncMole` have in common."""

    classify = _of(calls.classify)
    route = _of(calls.route)
    classify_batch = Endpoint(classify_batch, classify_batch, "list[ItemResult]")
    feedback = _of(calls.feedback)
    submit_job = _of(calls.submit_job)
    job = _of(calls.job)
    jobs = _of(calls.jobs)
    cancel_job = _of(calls.cancel_job)
    tasks = _of(calls.tasks)
    workers = _of(calls.workers)
    health = _of(calls.health)
