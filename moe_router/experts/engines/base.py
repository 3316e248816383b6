"""What an engine is: three steps, of which only the middle one needs the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from moe_router.errors import MoleError, NoWorkerError, WorkerAnswerError
from moe_router.experts.frames import without_frames
from moe_router.experts.prompting import Template
from moe_router.experts.scoring import Floats, LabelTrie

logger = logging.getLogger(__name__)


class OutOfMemoryError(NoWorkerError):
    """The device's memory does not hold the batch; a smaller one may fit."""


class NotANumberError(WorkerAnswerError):
    """The model answered with NaN: its weights do not suit the device, or are damaged."""

    def __init__(self) -> None:
        super().__init__("The model answered with NaN.")


class ServerAwayError(NoWorkerError):
    """The model's own server does not answer, or not yet; nothing is wrong with what it was asked."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A point at which a constrained decoder must choose.

    `feed` are the tokens chosen or forced since the last decision, `choices` those allowed next.
    """

    feed: tuple[int, ...]
    choices: tuple[int, ...]


Decoder = Generator[Decision, Floats, None]
"""Yields decisions, is sent the log-probabilities of the choices, and ends when it has all it wants.

A log-probability is normalised over the choices: what is not allowed has no share. All of them are -inf where
the model has told of none.
"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised prompt: the template's head, which is kept between requests, and the rest."""

    adapter: str | None
    head: tuple[int, ...]
    tail: tuple[int, ...]
    cut: bool = False
    """Whether a value lost its end: it passed the limit of tokens, or what the model reads at once."""
    input_cut: bool = False
    """Whether `{{input}}` did."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class LabelJob:
    """Asks for the log-probability of every label after the prompt."""

    prompt: Prompt
    trie: LabelTrie
    exact: bool = False
    """Whether every branch of the trie is read, also those that hardly any probability reaches."""
    wanted: Callable[[], bool] = _always
    """Whether somebody still waits; for engines that take a while for each step."""

    @property
    def cost(self) -> int:
        """Tokens to compute, for the budget of a batch."""
        return len(self.prompt.tail) + len(self.trie.context)


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """Runs a constrained decoder after the prompt."""

    prompt: Prompt
    decoder: Callable[[], Decoder]
    most_fed: int = 0
    """Tokens that a decision may feed."""
    wanted: Callable[[], bool] = _always
    """As a LabelJob's."""

    @property
    def cost(self) -> int:
        """Tokens to compute before decoding begins, and at a decision."""
        return len(self.prompt.tail) + self.most_fed


Job = LabelJob | DecodeJob
Outcome = Floats | int
"""(n_labels,) float64 log-probabilities of a LabelJob, -inf for a label that the engine cannot see; of a
DecodeJob, whose decoder has the result, how many tokens it was fed beyond its cost."""


def fed_beyond_cost(outcome: Outcome) -> int:
    """What of a job's work was not foreseen."""
    return outcome if isinstance(outcome, int) else 0


class Tokens(Protocol):
    """The CPU step: text to tokens. Safe to use from several threads."""

    @property
    def line_end(self) -> int:
        """The token of a line break, which also closes a label."""
        ...

    @property
    def context(self) -> int | None:
        """The most tokens that the model reads at once, prompt and answer; None where that is not known."""
        ...

    def prompt(
        self, template: Template, values: Mapping[str, str], adapter: str | None, answer: int = 0
    ) -> Prompt:
        """Fills and tokenises a template; a value past the limit of tokens is cut at its end.

        Args:
            template: what is filled.
            values: by name.
            adapter: the engine's name of the prompt's adapter.
            answer: tokens that may follow; values are cut so that with them all stays within `context`.

        Raises:
            MissingFieldError: the template needs a field that is not among the values.
        """
        ...

    def encode(self, text: str, *, trusted: bool) -> tuple[int, ...]:
        """Tokens of a stretch within a text; control tokens count only where it is trusted."""
        ...


class Engine(Protocol):
    """A base model with its adapters."""

    @property
    def tokens(self) -> Tokens:
        """Prepares jobs, on the CPU."""
        ...

    def infer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Runs a batch on the device; jobs of any adapters and templates may be mixed.

        Raises:
            OutOfMemoryError: the batch does not fit; nothing was kept of it.
        """
        ...

    def cost(self, job: Job) -> int:
        """Tokens to compute for a job, for the budget of a batch."""
        ...

    def load_adapter(self, name: str, path: str) -> None:
        """Loads an adapter beside the others, unmerged.

        Raises:
            ModelAssetError: names the adapter and the path as this process sees it.
        """
        ...

    def unload_adapter(self, name: str) -> None:
        """Takes an adapter away; no job may name it any more."""
        ...

    def memory_bytes(self) -> int:
        """What the model and its caches occupy on their device."""
        ...

    def load_bytes(self) -> int:
        """What they occupied at most while the model was loaded."""
        ...

    def close(self) -> None:
        """Gives the memory back."""
        ...


@runtime_checkable
class AnswersEach(Protocol):
    """An engine whose jobs fail one by one: there is nothing to find out by asking again."""

    def infer_each(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        """As `Engine.infer`, but a job that fails has its exception in its place."""
        ...


def infer_halving(engine: Engine, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
    """As `Engine.infer`, but halves a batch that does not fit, and answers each job by itself.

    A job that fails alone carries its own exception, without frames, and takes no other down with it.
    """
    if isinstance(engine, AnswersEach):
        return engine.infer_each(jobs)
    try:
        return list(engine.infer(jobs))
    except Exception as error:
        if len(jobs) == 1:
            if not isinstance(error, MoleError):  # where it was raised is not told from here on
                logger.error("a job failed", exc_info=error)
            return [without_frames(error)]
    middle = len(jobs) // 2
    return infer_halving(engine, jobs[:middle]) + infer_halving(engine, jobs[middle:])
