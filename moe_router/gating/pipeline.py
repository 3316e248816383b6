"""Composes gating: language, one encoder pass, domain, task, and then the experts to ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from moe_router.assets.encoder import EMBEDDED, ensure_encoder
from moe_router.contracts import UNDETERMINED, Abstention
from moe_router.errors import ModelAssetError
from moe_router.gating import abstention, domain, ngrams, qnetwork, task_router
from moe_router.gating.assembly import Assembly, Heads, has_words
from moe_router.gating.batching import BatchingEncoder, EncoderCounts
from moe_router.gating.decision import Beliefs, Decision, Stopwatch
from moe_router.gating.encoder import Encoder
from moe_router.gating.heads import Distribution
from moe_router.gating.language import LanguageGuess, LanguageIdentifier, find_model
from moe_router.gating.ngrams import NgramModel
from moe_router.gating.probe import ProbeAnswer
from moe_router.gating.task_router import Action, Observation, Policy, State, TaskRouter, Via
from moe_router.gating.versions import RouterWeights, shipped_digest
from moe_router.gating.weights import Floats, load
from moe_router.gating.wording import Wording, joined
from moe_router.languages import stated_language
from moe_router.registry import Expert, Registry

logger = logging.getLogger(__name__)

MOST_REMEMBERED = 4096
"""Decisions that callers have taken themselves."""
MODELS = Path(__file__).parent / "models"
"""Where the shipped weights lie."""


@dataclass(frozen=True, slots=True)
class GatingConfig:
    """Where gating's models are and how it runs."""

    cache_dir: Path
    model_dir: Path = MODELS
    lid_path: Path | None = None
    """lid.176.bin or the folder that holds it; None for the wheel's lid.176.ftz"""
    encoder: str = EMBEDDED
    threads: int | None = None
    max_tokens: int = 256
    target_risk: float = 0.05
    """share of answered requests that may go to a wrong task; sets when gating abstains"""
    early_exit: float = 0.98
    """the text is not encoded where the description alone gives a task this probability"""
    policy: Policy = field(default_factory=Policy)


class GatingPipeline:
    """Decides where requests go. Made by `load`; used from one event loop."""

    def __init__(self, config: GatingConfig, encoder: Encoder, language: LanguageIdentifier) -> None:
        """Use `load`."""
        self.config = config
        self.encoder = BatchingEncoder(encoder)
        self._identity = encoder.identity
        self.language = language
        own = partial(load, config.model_dir, encoder=encoder.identity, hidden=encoder.hidden)
        self.words = Wording.load(config.model_dir)
        """the second opinion on descriptions; None where the folder has none"""
        self._assembly = Assembly(
            encoder, own(domain.WEIGHTS), config.model_dir, config.policy, config.target_risk
        )
        self.shipped = RouterWeights(own(task_router.WEIGHTS), own(qnetwork.WEIGHTS))
        """the router's weights that lie in the folder"""
        self.shipped_digest = shipped_digest(config.model_dir)
        """tells them, and what they were fitted with, from others"""
        self._learned = self.shipped
        self._version: int | None = None
        self._heads: Heads | None = None
        self._reload = asyncio.Lock()

    @classmethod
    def load(cls, registry: Registry, config: GatingConfig) -> GatingPipeline:
        """Loads the models; makes the encoder in the cache where it is missing. Blocking.

        Raises:
            ModelAssetError: a model is missing or does not fit; the message names the mend.
        """
        shipped = config.model_dir / "encoder"
        use_shipped = config.encoder == EMBEDDED and (shipped / "encoder.json").is_file()
        folder = shipped if use_shipped else ensure_encoder(config.cache_dir, name=config.encoder)
        encoder = Encoder(folder, max_tokens=config.max_tokens, threads=config.threads)
        pipeline = cls(
            config, encoder, LanguageIdentifier(find_model(config.lid_path), _ngrams(config.model_dir))
        )
        pipeline._heads = pipeline._assembly.build(registry, pipeline.shipped, None)
        return pipeline

    @property
    def heads(self) -> Heads:
        """The heads in force."""
        if self._heads is None:
            raise RuntimeError("made without load()")
        return self._heads

    @property
    def registry(self) -> Registry:
        """The registry in force."""
        return self.heads.registry

    @property
    def left_out(self) -> frozenset[str]:
        """Tasks whose probe cannot be used."""
        return self.heads.left_out

    def counts(self) -> EncoderCounts:
        """What the encoder has done, for metrics."""
        return self.encoder.counts()

    async def use_registry(self, registry: Registry) -> None:
        """Replaces the registry; decisions under way finish on the old one.

        Raises:
            ModelAssetError: a probe that it names does not fit; the old registry stays in force.
        """
        async with self._reload:  # of two edits the later one stays
            self._heads = await asyncio.to_thread(
                self._assembly.build, registry, self._learned, self._version
            )

    @property
    def learned(self) -> RouterWeights:
        """The router's weights in force."""
        return self._learned

    async def use_router(self, weights: RouterWeights, version: int | None = None) -> None:
        """Replaces what the router has learned; decisions under way finish on the old weights.

        Args:
            weights: of the task head and the Q-network.
            version: their number, which decisions carry; None: those that the package ships.

        Raises:
            ModelAssetError: they do not fit; the old ones stay in force.
        """
        for part in (weights.tasks, weights.q_weights):
            made_for = part.meta.get("encoder")
            if made_for != self._identity:
                raise ModelAssetError(
                    f"the router's weights were made for the encoder {made_for!r}, "
                    f"but {self._identity!r} is in use"
                )
        async with self._reload:
            self._heads = await asyncio.to_thread(self._assembly.renewed, self.heads, weights, version)
            self._learned, self._version = weights, version

    def router_of(self, weights: RouterWeights) -> TaskRouter:
        """The router in force, but with these weights.

        Raises:
            ModelAssetError: they do not fit.
        """
        heads = self.heads
        return self._assembly.router(heads.registry, weights, heads.probes, heads.prototypes, None)

    async def aclose(self) -> None:
        """Ends the encoder's thread."""
        await self.encoder.aclose()

    async def decide(
        self,
        text: str,
        description: str | None,
        *,
        language: str | None = None,
        task: str | None = None,
        via: Via = "auto",
        served: Callable[[str], bool],
    ) -> Decision:
        """Finds the language, the domain and the task of a request.

        Args:
            text: the text to classify.
            description: what the caller asks, in any language; None or without a letter or digit for nothing.
            language: fixed by the caller, by any ISO 639 code; `und` fixes none.
            task: fixed by the caller.
            via: whether the probe may answer, must, or must not.
            served: whether some worker of the mapping holds the model of this key.

        Raises:
            UnknownTaskError: the registry has no such task.
        """
        heads = self.heads
        stated = stated_language(language)
        if task is not None and stated is not None:
            known = heads.decided.get((task, stated, via))
            if known is not None and _served(heads, task, served):
                return known
        asked = _words(description)
        watch = Stopwatch()
        guess = self._guess(text, asked, stated)
        watch.lap("language")
        if task is not None:
            found = await self._fixed(heads, text, guess, task, via, served, watch)
            if stated is not None and found.at_no_cost:
                self._remember(heads, (task, stated, via), found)
            return found
        passes, asked_vector, text_vector = await self._encode(heads, text, asked, via)
        watch.lap("encode" if passes else "task")
        domains = heads.domains(asked_vector, text_vector)
        watch.lap("domain")
        tasks = self._tasks(heads, asked, asked_vector, text_vector)
        encodings = heads.router.qnetwork.state(asked_vector, text_vector)
        state = State(encodings, tasks, domains, guess.code, guess.probability)
        chosen = heads.router.choose_task(state)
        refusal = self._refusal(heads, state, chosen, asked, stated, served, via)
        probe = self._probe(heads, chosen, text_vector, via) if refusal is None else None
        watch.lap("task")
        return Decision.of(
            state, chosen, refusal, watch, via=via, router=heads.router, probe=probe, encoder_passes=passes,
            encoder=self._identity, description_vector=asked_vector, text_vector=text_vector,
        )  # fmt: skip

    def next_action(
        self, decision: Decision, observations: Sequence[Observation], *, reachable: Callable[[Expert], bool]
    ) -> Action:
        """What to do next about a request that was not abstained from.

        Raises:
            NoWorkerError: nothing has been answered and no expert can be reached.
        """
        if decision.task is None:
            raise ValueError("gating abstained: there is nothing to do")
        return decision.router.next_action(
            decision.state, decision.task, observations, via=decision.via, reachable=reachable
        )

    def candidates(self, decision: Decision, *, reachable: Callable[[Expert], bool]) -> list[Expert]:
        """The task's experts, most valuable first, unreachable ones last; none where gating abstained."""
        if decision.task is None:
            return []
        return decision.router.candidates(
            decision.state, decision.task, via=decision.via, reachable=reachable
        )

    def _guess(self, text: str, description: str | None, fixed: str | None) -> LanguageGuess:
        if fixed is not None:
            return LanguageGuess(fixed, 1.0)
        guess = self.language.identify([text])[0]
        if guess.code == UNDETERMINED and description:
            # What a caller writes in is the best hint where the text itself says nothing.
            other = self.language.identify([description])[0]
            return LanguageGuess(other.code, min(other.probability, 0.5))
        return guess

    async def _encode(
        self, heads: Heads, text: str, description: str | None, via: Via
    ) -> tuple[int, Floats | None, Floats | None]:
        """Encodes what is needed in one pass: (passes, description's vector, text's vector)."""
        if description is None:
            return 1, None, (await self.encoder.encode([text]))[0]
        vector = self.encoder.kept(description)
        if vector is not None:
            if not self._needs_text(heads, description, vector, via):
                return 0, vector, None
            return 1, vector, (await self.encoder.encode([text]))[0]
        vector, text_vector = await self.encoder.encode([description, text])
        self.encoder.keep(description, vector)
        # Judged alike whether or not the description was known, so that equal requests get equal answers.
        return 1, vector, text_vector if self._needs_text(heads, description, vector, via) else None

    def _tasks(
        self, heads: Heads, description: str | None, described: Floats | None, text: Floats | None
    ) -> Distribution:
        return joined(self.words, description, heads.router.head(described, text))

    def _needs_text(self, heads: Heads, description: str, vector: Floats, via: Via) -> bool:
        tasks = self._tasks(heads, description, vector, None)
        best = int(tasks.probabilities.argmax())
        if tasks.probabilities[best] < self.config.early_exit:
            return True
        return via != "expert" and tasks.names[best] in heads.probes

    async def _fixed(
        self,
        heads: Heads,
        text: str,
        guess: LanguageGuess,
        task: str,
        via: Via,
        served: Callable[[str], bool],
        watch: Stopwatch,
    ) -> Decision:
        """The caller named the task: only a probe needs an encoding."""
        heads.registry.task(task)
        probing = via != "expert" and task in heads.probes
        vector = None
        if probing:
            vector = (await self.encoder.encode([text]))[0]
            watch.lap("encode")
        known = heads.certain.get(task) if vector is None else None
        if known is None:
            tasks = Distribution((task,), np.ones(1, np.float32), 0.0, 0.0)
            domains = Distribution((task.split("/")[0],), np.ones(1, np.float32), 0.0, 0.0)
            known = (
                heads.router.qnetwork.state(None, vector),
                tasks,
                domains,
                Beliefs.of(tasks, domains, task),
            )
            if vector is None:
                heads.certain[task] = known
        encodings, tasks, domains, beliefs = known
        state = State(encodings, tasks, domains, guess.code, guess.probability)
        refusal = self._untold(heads, task, guess.code) or self._unserved(heads, task, served, via)
        probe = self._probe(heads, task, vector, via) if refusal is None else None
        watch.lap("task")
        return Decision.of(
            state, task, refusal, watch, via=via, router=heads.router, probe=probe,
            encoder_passes=int(probing), encoder=self._identity, text_vector=vector, beliefs=beliefs,
        )  # fmt: skip

    @staticmethod
    def _remember(heads: Heads, asked: tuple[str, str, Via], found: Decision) -> None:
        task, language, _ = asked
        languages = heads.registry.languages_of(task)
        if languages is not None and language not in languages:  # it will be refused
            return
        if len(heads.decided) >= MOST_REMEMBERED:  # the oldest goes: languages come from callers
            del heads.decided[next(iter(heads.decided))]
        heads.decided[asked] = found.again()

    def _refusal(
        self,
        heads: Heads,
        state: State,
        chosen: str,
        description: str | None,
        language: str | None,
        served: Callable[[str], bool],
        via: Via,
    ) -> Abstention | None:
        if state.language == UNDETERMINED and not description and language is None:
            return abstention.unknown_language(abstention.nearest(state.tasks))
        return (
            abstention.judge(state.tasks, chosen, heads.threshold)
            or self._untold(heads, chosen, state.language)
            or self._unserved(heads, chosen, served, via)
        )

    @staticmethod
    def _untold(heads: Heads, task: str, language: str) -> Abstention | None:
        """Where a task states its languages, the text's must be known."""
        if language != UNDETERMINED or heads.registry.languages_of(task) is None:
            return None
        return abstention.unknown_language([task])

    @staticmethod
    def _unserved(heads: Heads, task: str, served: Callable[[str], bool], via: Via) -> Abstention | None:
        if via != "expert" and task in heads.probes:
            return None
        if via != "probe" and _served(heads, task, served):
            return None
        return abstention.expert_unavailable(task, probe_only=via == "probe")

    @staticmethod
    def _probe(heads: Heads, task: str, text: Floats | None, via: Via) -> ProbeAnswer | None:
        if via == "expert" or text is None or task not in heads.probes:
            return None
        return heads.probes[task](text)


def _served(heads: Heads, task: str, served: Callable[[str], bool]) -> bool:
    """Whether one of the task's experts is."""
    for expert in heads.registry.all_experts(task):  # noqa: SIM110  a generator takes three times as long
        if served(expert.base_model_key):
            return True
    return False


def _words(description: str | None) -> str | None:
    """What is asked; None where it says nothing."""
    return description.strip() if description and has_words(description) else None


def _ngrams(model_dir: Path) -> NgramModel | None:
    if not (model_dir / f"{ngrams.WEIGHTS}.safetensors").is_file():
        logger.warning("no %s.safetensors in %s: lid.176 tells languages alone", ngrams.WEIGHTS, model_dir)
        return None
    return NgramModel(model_dir)


__all__ = ["Action", "Decision", "GatingConfig", "GatingPipeline", "Observation"]
