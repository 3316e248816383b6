"""One expert: from a request to jobs for the engine, and from their outcomes to an answer."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from moe_router.contracts import Entity, ExpertRequest
from moe_router.errors import ConfigError, ModelAssetError, TextTooLongError
from moe_router.experts import extraction, formats
from moe_router.experts.engines.base import DecodeJob, Job, LabelJob, NotANumberError, Outcome, Tokens
from moe_router.experts.expert_file import ExpertFile
from moe_router.experts.prompting import (
    DESCRIPTION,
    INPUT,
    Template,
    default_template,
    load_template,
    without_tags,
)
from moe_router.experts.scoring import Floats, LabelTrie, distribution, tempered
from moe_router.experts.text_words import LEAST_WINDOW_WORDS, Window, least_windows, windows_of
from moe_router.registry import Expert, TaskSpec

logger = logging.getLogger(__name__)

CONTENT_FREE = ("N/A",)
"""Texts that say nothing: what a zero-shot expert prefers for them is its bias."""

LINE_TOKENS = 8
"""Beside an entity's words, in a line of what an extraction writes: a dash, the type and their like."""

LEAST_TEXT_TOKENS = 32
"""Of a text, that a model must be able to read beside the template."""

ENTITIES = "entities"
"""The `result` of an extraction."""


@dataclass(frozen=True, slots=True)
class Work:
    """The jobs of one request; for an extraction also where their decoders put what they find."""

    jobs: tuple[Job, ...]
    text: str = ""
    windows: tuple[Window, ...] = ()
    found: tuple[extraction.Found, ...] = ()

    @property
    def claims(self) -> list[extraction.Claim]:
        """Of all windows."""
        return [claim for found in self.found for claim in found.claims]


@dataclass(frozen=True, slots=True)
class Finding:
    """What an expert found: a label, or entities."""

    result: str
    confidence: float
    probabilities: dict[str, float] | None
    entities: list[Entity] | None
    raw_response: str


class TaskExpert:
    """Serves one expert of the registry.

    Args:
        expert: which one.
        task: its task.
        template_path: its `template.json`; None takes a template made from the task's description.
        tokens: the engine's tokenizer.
        adapter: the engine's name of its adapter; None asks the base model.
        max_text_tokens: a classified text's limit.
        trained: what training wrote beside the adapter.

    Raises:
        ConfigError: the template is missing or malformed.
        ModelAssetError: the labels cannot be told apart, or there are none.
    """

    def __init__(
        self,
        expert: Expert,
        task: TaskSpec,
        template_path: Path | None,
        tokens: Tokens,
        adapter: str | None,
        *,
        max_text_tokens: int = 2048,
        trained: ExpertFile | None = None,
    ) -> None:
        if not task.label_set:
            raise ModelAssetError(f"{expert.task_key}: the label_set is empty")
        self.expert = expert
        self.labels = task.label_set
        self.extracts = task.kind == "extraction"
        self._tokens = tokens
        self._adapter = adapter
        self._description = task.description or ""
        self._max_text_tokens = max_text_tokens
        self._trained = trained
        source = self._source(template_path)
        self._words = self._choose_words(source)
        constants = {"labels": ", ".join(self.labels if adapter else self._words), "task": expert.task_key}
        self._template = self._parsed(source, template_path, constants)
        self._encode = partial(tokens.encode, trusted=False)
        if self.extracts:
            self._grammar = extraction.Grammar.of(task.label_set, self._encode)
        else:
            self._trie = self._label_trie()
        self._prior: Floats | None = None
        self._temperature, self._span_temperature = 1.0, 1.0
        if trained is not None and (trained.span_temperature is not None or not self.extracts):
            self._temperature = trained.temperature
            self._span_temperature = trained.span_temperature or 1.0
        # Dividing by a prior, and a temperature above 1, make much of little probabilities.
        self._magnifies = adapter is None or self._temperature > 1

    def prepare(self, request: ExpertRequest) -> Work:
        """Tokenises a request; CPU only, safe in any thread.

        Raises:
            MissingFieldError: the template needs a field that the request lacks.
            TextTooLongError: with these fields the template alone is more than the model reads at once.
        """
        work = self._prepare(request.text, request.language, request.description, request.fields or {})
        if any(self._room_left(job) < 0 for job in work.jobs):
            raise TextTooLongError(
                "With these fields the task's template alone is longer than what its model reads at once."
            )
        return work

    def least_jobs(self, text: str) -> int:
        """How many jobs a request of this text has at least; found much sooner than they are made."""
        return least_windows(text) if self.extracts else 1

    def finish(self, work: Work, outcomes: Sequence[Outcome]) -> Finding:
        """The answer from what the engine computed for `work.jobs`, in their order.

        CPU only, safe in any thread; of an extraction it takes as long as the text is.

        Raises:
            NotANumberError: the model answered with NaN.
        """
        return self._entities(work) if self.extracts else self._label(outcomes)

    def answers(self, work: Work, entities: Sequence[Entity]) -> list[tuple[int, ...]]:
        """What an extraction's decoders should write: one token sequence for each of its jobs."""
        return [
            extraction.answer(work.text, window, entities, self._grammar, self._encode)
            for window in work.windows
        ]

    def warm_up_jobs(self) -> list[Job]:
        """Jobs that read the template's head, and for a zero-shot expert measure its bias.

        Raises:
            ModelAssetError: the template leaves too little of what the model reads at once.
        """
        fields = dict.fromkeys(self._template.required, CONTENT_FREE[0])
        jobs = [job for text in CONTENT_FREE for job in self._prepare(text, "en", None, fields).jobs]
        if any(self._room_left(job) < LEAST_TEXT_TOKENS for job in jobs):
            raise ModelAssetError(
                f"the task's template leaves no {LEAST_TEXT_TOKENS} tokens for a text "
                f"of the {self._tokens.context} that the model reads at once"
            )
        return jobs

    def warmed_up(self, outcomes: Sequence[Outcome]) -> None:
        """Takes the outcomes of `warm_up_jobs`.

        Raises:
            NotANumberError: the model answers with NaN.
        """
        if any(np.isnan(outcome).any() for outcome in outcomes):
            raise NotANumberError
        if self._adapter is None and not self.extracts:
            prior = np.mean([outcome for outcome in outcomes if not isinstance(outcome, int)], axis=0)
            # A model server tells some tokens only: the bias of a label that is not seen is not known, and
            # dividing by next to nothing would make that label the answer wherever it is seen.
            self._prior = prior if np.isfinite(prior).all() else None

    def _prepare(self, text: str, language: str, description: str | None, fields: Mapping[str, str]) -> Work:
        values = {
            **fields,
            DESCRIPTION: description or self._description,
            "language": language,
            INPUT: text,
        }
        if not self.extracts:
            prompt = self._tokens.prompt(self._template, values, self._adapter, self._trie.depth)
            return Work((LabelJob(prompt, self._trie, exact=self._magnifies),))
        parts = [part for window in windows_of(text) for part in self._parts(text, window, values)]
        windows, jobs, found = zip(*parts, strict=True) if parts else ((), (), ())
        return Work(jobs, text, windows, found)

    def _parts(
        self, text: str, window: Window, values: Mapping[str, str]
    ) -> Iterator[tuple[Window, DecodeJob, extraction.Found]]:
        """The window with its job; where the model would not read it whole, those of its halves."""
        here = extraction.Found()
        decode = partial(extraction.decoder, text, window, self._grammar, self._encode, here)
        shown = window.shown(text)
        every_word = len(self._encode(shown)) + LINE_TOKENS * len(window.words)
        prompt = self._tokens.prompt(self._template, {**values, INPUT: shown}, self._adapter, every_word)
        # Lines of an encoded key, say, have many tokens; what the model does not read it cannot name.
        if prompt.input_cut and len(window.words) > LEAST_WINDOW_WORDS:
            for half in window.halves():
                yield from self._parts(text, half, values)
        else:
            yield window, DecodeJob(prompt, decode, extraction.most_fed(text, window, self._encode)), here

    def _room_left(self, job: Job) -> float:
        """Tokens that the model could read beside a job's prompt and label; below 0 not even those."""
        if self._tokens.context is None:
            return math.inf
        label = 0 if self.extracts else self._trie.depth
        return self._tokens.context - label - len(job.prompt.head) - len(job.prompt.tail)

    def _label(self, outcomes: Sequence[Outcome]) -> Finding:
        [log_probabilities] = outcomes
        if isinstance(log_probabilities, int):
            raise ValueError("the engine gave no label probabilities")
        if np.isnan(log_probabilities).any():
            raise NotANumberError
        probabilities = distribution(log_probabilities, prior=self._prior, temperature=self._temperature)
        best = int(probabilities.argmax())
        return Finding(
            self.labels[best],
            float(probabilities[best]),
            dict(zip(self.labels, probabilities.tolist(), strict=True)),
            None,
            self.labels[int(log_probabilities.argmax())],
        )

    def _entities(self, work: Work) -> Finding:
        text, told = work.text, work.claims
        claims = [
            Entity(type=c.type, start=c.start, end=c.end, value=text[c.start : c.end], confidence=float(sure))
            for c, sure in zip(told, self._sureness(told), strict=True)
        ]
        entities = extraction.merged(formats.find(text, self.labels), claims)
        no_other = tempered(np.array([found.no_other for found in work.found]), self._span_temperature)
        # Every entity of the list is right, and none is missing.
        whole = math.prod(entity.confidence for entity in entities) * float(no_other.prod())
        places = {(claim.start, claim.end, claim.type): claim.value for claim in claims}  # windows overlap
        raw = json.dumps([[value, kind] for (_, _, kind), value in places.items()], ensure_ascii=False)
        return Finding(ENTITIES, whole, None, entities, raw)

    def _sureness(self, claims: Sequence[extraction.Claim]) -> Floats:
        """(n_claims,) the calibrated probability that a claim's span and type are right."""
        span, kind = np.array([(claim.span, claim.kind) for claim in claims]).reshape(-1, 2).T
        return tempered(span, self._span_temperature) * tempered(kind, self._temperature)

    def _source(self, path: Path | None) -> str | None:
        """The template's text; None where one is made of the task's description."""
        if path is None:
            return None if self._trained is None else self._trained.template
        source = load_template(path, self.expert.base_model_key)
        if self._trained is not None and source != self._trained.template:
            logger.warning(
                "%s: %s holds another prompt than its adapter was trained on", self.expert.task_key, path
            )
        return source

    def _parsed(self, source: str | None, path: Path | None, constants: Mapping[str, str]) -> Template:
        try:
            return Template(source or default_template(self._description, self._words), constants)
        except ValueError as error:
            if path is None:
                raise
            raise ConfigError(path, "$", str(error)) from error

    def _choose_words(self, source: str | None) -> tuple[str, ...]:
        """What stands for the labels: what an adapter was trained on, or what a base model would write."""
        if self._trained is not None and self._trained.words is not None:
            return self._trained.words
        if self._adapter or self.extracts:
            return self.labels
        return spoken(self.labels, f"{source or ''}\n{self._description}")

    def _label_trie(self) -> LabelTrie:
        prefix = self._template.label_prefix
        sequences = [self._tokens.encode(prefix + word, trusted=False) for word in self._words]
        try:
            return LabelTrie(sequences, self._tokens.line_end)
        except ValueError as error:
            raise ModelAssetError(f"{self.expert.task_key}: {error} in this model's tokens") from error


def spoken(labels: Sequence[str], prompt: str) -> tuple[str, ...]:
    """The labels as a model that was not trained on them would write them: `card arrival` for `card_arrival`.

    It knows words better than identifiers, and reads half as many tokens of 77 of them. They stay as they are
    where the prompt spells one of them out, as in an example, and where two would become the same.
    """
    words = tuple(map(_words_of, labels))
    changed = [label for label, word in zip(labels, words, strict=True) if label != word]
    told = without_tags(prompt)
    spelt = any(label in told for label in changed)
    return tuple(labels) if spelt or len(set(words)) < len(words) else words


def _words_of(label: str) -> str:
    if "_" not in label:
        return label
    return " ".join(label.replace("_", " ").split()) or label
