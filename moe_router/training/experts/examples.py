"""Training examples for an expert: the very tokens and choices that serving scores.

Prompts come from the `TaskExpert` that will serve, so that template, tokenisation and label tokens cannot
differ. An example's loss is the negative log-likelihood of its answer where answers are scored: a
softmax over the allowed tokens at each point where the label trie, or the extraction's automaton, leaves a
choice. Tokens that are forced are read but not learned.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from pydantic import ValidationError

from moe_router.contracts import Entity, ExpertRequest
from moe_router.errors import RequestError
from moe_router.experts.engines.base import DecodeJob, LabelJob
from moe_router.experts.scoring import ROOT, Floats
from moe_router.experts.task_expert import TaskExpert

logger = logging.getLogger(__name__)

MAX_TOKENS = 512
"""Longer examples are left out: their attention would decide a batch's memory."""

CHOOSING = "choosing.jsonl.gz"
"""A file that a data folder may have: more rows that may choose, beside half of the validation file."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A point at which the model decides: after the token at `at`, `options[gold]` is right."""

    at: int
    options: tuple[int, ...]
    gold: int


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with its answer, and the choices in it."""

    tokens: tuple[int, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text; `label` for a classification, `entities` for an extraction.

    `context` is what the task's template takes beside the text, such as the query of a product.
    """

    text: str
    language: str
    label: str = ""
    entities: tuple[Entity, ...] = ()
    context: dict[str, str] = field(default_factory=dict, hash=False)


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSON Lines file, compressed where its name ends in `.gz`; blank lines count for nothing.

    A row has text, language, and label or entities; its context, if it has one, is an object of strings.

    Raises:
        RequestError: there is no such file, or a line lacks what is needed or could not be asked of a worker.
    """
    rows: list[Row] = []
    number = 0
    try:
        with _opened(path) as lines:
            for line in lines:
                number += 1
                if line.strip():
                    rows.append(_row(json.loads(line)))
    except (EOFError, OSError, zlib.error) as error:
        raise RequestError(f"{path}: {type(error).__name__}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path}, line {number}: {_told(error)}") from error
    return rows


def _told(error: Exception) -> str:
    """What is wrong with a row, without what stands in it."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


def halves(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows that may choose, and rows that are only reported on; a draw of its own, the same for every run."""
    order = np.random.default_rng(77).permutation(len(rows))
    middle = len(rows) // 2
    return [rows[i] for i in order[:middle]], [rows[i] for i in order[middle:]]


def judging_rows(folder: Path, most: int) -> tuple[list[Row], list[Row]]:
    """The rows that may choose a checkpoint and a temperature, and those that are only reported on.

    At most so many of each half of the validation file; those of CHOOSING, where there are such, beside them.

    Raises:
        RequestError: a file cannot be read.
    """
    choosing, reported = (half[:most] for half in halves(read_rows(folder / "validation.jsonl.gz")))
    return [*choosing, *rows_to_choose_by(folder)], reported


def rows_to_choose_by(folder: Path) -> list[Row]:
    """The rows of CHOOSING, if there is such a file."""
    return read_rows(folder / CHOOSING) if (folder / CHOOSING).is_file() else []


def _opened(path: Path) -> IO[str]:
    encoding = "utf-8-sig"  # some editors begin a file with a mark
    return gzip.open(path, "rt", encoding=encoding) if path.suffix == ".gz" else path.open(encoding=encoding)


def _row(data: object) -> Row:
    if not isinstance(data, dict):
        raise TypeError("a row must be an object")
    row = Row(
        str(data["text"]),
        str(data.get("language", "en")),
        "" if "entities" in data else str(data["label"]),
        _entities(data.get("entities")),
        _context(data.get("context", {})),
    )
    for entity in row.entities:
        if row.text[entity.start : entity.end] != entity.value:
            place = f"{entity.start} to {entity.end}"
            raise ValueError(f"the text from {place} is not the {entity.type}'s value")
    request_of(row, "any/task")  # as it will be asked
    return row


def _entities(data: object) -> tuple[Entity, ...]:
    if data is None:
        return ()
    if isinstance(data, list) and all(isinstance(entity, dict) for entity in data):
        return tuple(Entity(**{**entity, "confidence": 1.0}) for entity in data)
    raise TypeError("entities: must be a list of objects")


def _context(data: object) -> dict[str, str]:
    if isinstance(data, dict) and all(isinstance(value, str) for value in data.values()):
        return data
    raise TypeError("context: must be an object of strings")


def request_of(row: Row, task_key: str) -> ExpertRequest:
    """The request by which a row would reach a worker."""
    return ExpertRequest(task_key=task_key, text=row.text, language=row.language, fields=row.context or None)


def examples_of(expert: TaskExpert, rows: Iterable[Row]) -> list[Example]:
    """The examples of the rows that leave a choice; of a long extraction one for each window.

    Raises:
        RequestError: there is none, or all are too long.
    """
    made = [example for row in rows for example in _of_row(expert, row) if example.choices]
    kept = [example for example in made if len(example.tokens) <= MAX_TOKENS]
    if not made:
        raise RequestError("There is nothing to train on: no row leaves the model a choice.")
    if not kept:
        raise RequestError(f"All {len(made)} examples have more than {MAX_TOKENS} tokens.")
    if len(kept) < len(made):
        dropped = len(made) - len(kept)
        logger.warning("%d of %d examples have more than %d tokens: left out", dropped, len(made), MAX_TOKENS)
    return kept


def _of_row(expert: TaskExpert, row: Row) -> list[Example]:
    work = expert.prepare(request_of(row, expert.expert.task_key))
    found = []
    answers = expert.answers(work, row.entities) if expert.extracts else [()]
    for job, answer in zip(work.jobs, answers, strict=True):
        if isinstance(job, LabelJob):
            found.append(_label_example(job, expert.labels.index(row.label)))
        else:
            found.append(_decode_example(job, answer))
    return found


def _label_example(job: LabelJob, label: int) -> Example:
    prompt = (*job.prompt.head, *job.prompt.tail)
    choices: list[Choice] = []
    at = ROOT
    for depth, token in enumerate(job.trie.sequences[label]):
        children = job.trie.nodes[at].children
        if len(children) > 1:
            options = tuple(children)
            choices.append(Choice(len(prompt) - 1 + depth, options, options.index(token)))
        at = children[token]
    return _example((*prompt, *job.trie.sequences[label]), choices)


def _decode_example(job: DecodeJob, answer: tuple[int, ...]) -> Example:
    """Leads the decoder along the answer; where it cannot follow, the rest of the answer is left out."""
    prompt = (*job.prompt.head, *job.prompt.tail)
    choices: list[Choice] = []
    decoder = job.decoder()
    decision = next(decoder, None)
    done = 0
    while decision is not None:
        if answer[done : done + len(decision.feed)] != decision.feed:
            break
        done += len(decision.feed)
        if done >= len(answer) or answer[done] not in decision.choices:
            break
        gold = decision.choices.index(answer[done])
        choices.append(Choice(len(prompt) + done - 1, decision.choices, gold))
        scores: Floats = np.full(len(decision.choices), -np.inf)
        scores[gold] = 0.0
        try:
            decision = decoder.send(scores)
        except StopIteration:
            break
    return _example((*prompt, *answer), choices)


def _example(tokens: tuple[int, ...], choices: list[Choice]) -> Example:
    last = choices[-1].at if choices else 0
    return Example(tokens[: last + 1], tuple(choices))
