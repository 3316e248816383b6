"""Composes gating: language, one encoder pass, domain, task, and then the experts to ask."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from moe_router.assets.encoder import EMBEDDED, ensure_encoder
from moe_router.contracts import UNDETERMINED, Abstention, RouteStep, Timings
from moe_router.errors import ModelAssetError
from moe_router.gating import abstention, domain, ngrams, qnetwork, task_router
from moe_router.gating.batching import BatchingEncoder, EncoderCounts
from moe_router.gating.decision import Decision
from moe_router.gating.encoder import Encoder
from moe_router.gating.heads import NONE, Distribution, MixtureHead
from moe_router.gating.language import LanguageGuess, LanguageIdentifier, find_model
from moe_router.gating.ngrams import NgramModel
from moe_router.gating.probe import Probe, ProbeAnswer
from moe_router.gating.qnetwork import QNetwork
from moe_router.gating.task_router import PROBE, Action, Observation, Policy, State, TaskRouter, Via
from moe_router.gating.versions import RouterWeights
from moe_router.gating.weights import Floats, load
from moe_router.registry import Expert, Registry

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class _Heads:
    """What depends on the registry; replaced as a whole."""

    registry: Registry
    domains: MixtureHead
    router: TaskRouter
    probes: dict[str, Probe]
    certain: dict[str, tuple[Floats, Distribution, Distribution]] = field(default_factory=dict)
    """what is known of a request whose task is given and of which nothing is encoded, by task"""


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What was encoded of a request, and by which encoder."""

    encoder: str
    description: Floats | None
    text: Floats | None


class GatingPipeline:
    """Decides where requests go. Made by `load`; used from one event loop."""

    def __init__(self, config: GatingConfig, encoder: Encoder, language: LanguageIdentifier) -> None:
        """Use `load`."""
        self.config = config
        self.encoder = BatchingEncoder(encoder)
        self._identity = encoder.identity
        self.language = language
        self._hidden = encoder.hidden
        own = partial(load, config.model_dir, encoder=encoder.identity, hidden=encoder.hidden)
        self._domain_weights = own(domain.WEIGHTS)
        self.shipped = RouterWeights(own(task_router.WEIGHTS), own(qnetwork.WEIGHTS))
        """the router's weights that lie in the folder"""
        self._learned = self.shipped
        self._version: int | None = None
        self._threshold = abstention.threshold_for(self.shipped.tasks.meta, config.target_risk)
        self._phrasings: dict[str, Floats] = {}
        self._heads: _Heads | None = None
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
        pipeline._heads = pipeline._build(registry)
        return pipeline

    @property
    def heads(self) -> _Heads:
        """The heads in force."""
        if self._heads is None:
            raise RuntimeError("made without load()")
        return self._heads

    @property
    def registry(self) -> Registry:
        """The registry in force."""
        return self.heads.registry

    def counts(self) -> EncoderCounts:
        """What the encoder has done, for metrics."""
        return self.encoder.counts()

    async def use_registry(self, registry: Registry) -> None:
        """Replaces the registry; decisions under way finish on the old one.

        Raises:
            ModelAssetError: a probe that it names does not fit; the old registry stays in force.
        """
        async with self._reload:  # of two edits the later one stays
            self._heads = await asyncio.to_thread(self._build, registry)

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
            old = self._learned, self._version, self._threshold
            self._learned, self._version = weights, version
            try:
                self._threshold = abstention.threshold_for(weights.tasks.meta, self.config.target_risk)
                self._heads = await asyncio.to_thread(self._build, self.registry)
            except BaseException:
                self._learned, self._version, self._threshold = old
                raise

    def router_of(self, weights: RouterWeights) -> TaskRouter:
        """The router in force, but with these weights; blocking the first time a phrasing is seen.

        Raises:
            ModelAssetError: they do not fit.
        """
        return self._router(self.registry, weights, self.heads.probes, None)

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
            description: what the caller asks, in any language; None or blank for nothing.
            language: fixed by the caller.
            task: fixed by the caller.
            via: whether the probe may answer, must, or must not.
            served: whether some worker of the mapping holds the model of this key.

        Raises:
            UnknownTaskError: the registry has no such task.
        """
        heads = self.heads
        asked = description.strip() if description else None
        watch = _Stopwatch()
        guess = self._guess(text, asked, language)
        watch.lap("language")
        if task is not None:
            return await self._fixed(heads, text, guess, task, via, served, watch)
        passes, asked_vector, text_vector = await self._encode(heads, text, asked or None, via)
        watch.lap("encode" if passes else "task")
        domains = heads.domains(asked_vector, text_vector)
        watch.lap("domain")
        tasks = heads.router.head(asked_vector, text_vector)
        encodings = heads.router.qnetwork.state(asked_vector, text_vector)
        state = State(encodings, tasks, domains, guess.code, guess.probability)
        chosen = heads.router.choose_task(state)
        refusal = self._refusal(heads, state, chosen, asked, language, served, via)
        probe = self._probe(heads, chosen, text_vector, via) if refusal is None else None
        watch.lap("task")
        vectors = _Vectors(self._identity, asked_vector, text_vector)
        return _decision(state, chosen, refusal, watch, passes, via, heads.router, probe, vectors)

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
        self, heads: _Heads, text: str, description: str | None, via: Via
    ) -> tuple[int, Floats | None, Floats | None]:
        """Encodes what is needed in one pass: (passes, description's vector, text's vector)."""
        if description is None:
            return 1, None, (await self.encoder.encode([text]))[0]
        vector = self.encoder.kept(description)
        if vector is not None:
            if not self._needs_text(heads, vector, via):
                return 0, vector, None
            return 1, vector, (await self.encoder.encode([text]))[0]
        vector, text_vector = await self.encoder.encode([description, text])
        self.encoder.keep(description, vector)
        # Judged alike whether or not the description was known, so that equal requests get equal answers.
        return 1, vector, text_vector if self._needs_text(heads, vector, via) else None

    def _needs_text(self, heads: _Heads, description: Floats, via: Via) -> bool:
        tasks = heads.router.head(description, None)
        best = int(tasks.probabilities.argmax())
        if tasks.probabilities[best] < self.config.early_exit:
            return True
        return via != "expert" and tasks.names[best] in heads.probes

    async def _fixed(
        self,
        heads: _Heads,
        text: str,
        guess: LanguageGuess,
        task: str,
        via: Via,
        served: Callable[[str], bool],
        watch: _Stopwatch,
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
            known = heads.router.qnetwork.state(None, vector), tasks, domains
            if vector is None:
                heads.certain[task] = known
        state = State(*known, guess.code, guess.probability)
        refusal = self._unserved(heads, task, served, via)
        probe = self._probe(heads, task, vector, via) if refusal is None else None
        watch.lap("task")
        vectors = _Vectors(self._identity, None, vector)
        return _decision(state, task, refusal, watch, int(probing), via, heads.router, probe, vectors)

    def _refusal(
        self,
        heads: _Heads,
        state: State,
        chosen: str,
        description: str | None,
        language: str | None,
        served: Callable[[str], bool],
        via: Via,
    ) -> Abstention | None:
        if state.language == UNDETERMINED and not description and language is None:
            return abstention.unknown_language(abstention.nearest(state.tasks))
        return abstention.judge(state.tasks, chosen, self._threshold) or self._unserved(
            heads, chosen, served, via
        )

    @staticmethod
    def _unserved(heads: _Heads, task: str, served: Callable[[str], bool], via: Via) -> Abstention | None:
        if via != "expert" and task in heads.probes:
            return None
        experts = heads.registry.all_experts(task) if via != "probe" else ()
        if any(served(expert.base_model_key) for expert in experts):
            return None
        return abstention.expert_unavailable(task, probe_only=via == "probe")

    @staticmethod
    def _probe(heads: _Heads, task: str, text: Floats | None, via: Via) -> ProbeAnswer | None:
        if via == "expert" or text is None or task not in heads.probes:
            return None
        return heads.probes[task](text)

    def _build(self, registry: Registry) -> _Heads:
        probes = self._load_probes(registry)
        router = self._router(registry, self._learned, probes, self._version)
        domains = domain.domain_head(registry, self._domain_weights, self._prototypes(registry))
        return _Heads(registry, domains, router, probes)

    def _router(
        self, registry: Registry, weights: RouterWeights, probes: Mapping[str, Probe], version: int | None
    ) -> TaskRouter:
        return TaskRouter(
            registry,
            weights.tasks,
            QNetwork(weights.q_weights, self._hidden),
            self._prototypes(registry),
            skills=known_skills(weights.q_weights.meta, probes),
            policy=self.config.policy,
            version=version,
        )

    def _prototypes(self, registry: Registry) -> dict[str, Floats]:
        """The vectors of each task's description and examples; a task without any has none."""
        phrases = {
            key: [phrase for phrase in (task.description, *task.examples) if phrase]
            for key, task in registry.tasks.items()
        }
        new = sorted({p for own in phrases.values() for p in own} - self._phrasings.keys())
        if new:
            self._phrasings.update(zip(new, self.encoder.encoder.encode(new), strict=True))
        for key, own in phrases.items():
            if not own and key not in self._learned.tasks.meta["classes"]:
                logger.warning("task %s has no description and no weights: only options.task reaches it", key)
        return {key: np.stack([self._phrasings[p] for p in own]) for key, own in phrases.items() if own}

    def _load_probes(self, registry: Registry) -> dict[str, Probe]:
        probes = {}
        for key, task in registry.tasks.items():
            if task.probe is None:
                continue
            path = Path(task.probe.path)
            if ".." in path.parts:
                raise ModelAssetError(f"the probe path {path} of {key} leads out of its folder")
            base = path if path.is_absolute() else self.config.model_dir / path
            encoder = self.encoder.encoder
            probes[key] = Probe(base, task.label_set, encoder=encoder.identity, hidden=encoder.hidden)
        return probes


def known_skills(meta: Mapping[str, Any], probes: Mapping[str, Probe]) -> dict[str, dict[str, float]]:
    """Share of right answers by task and name: what the weights' description says, and the probes'."""
    skills = {key: dict(own) for key, own in meta.get("skills", {}).items()}
    for key, probe in probes.items():
        if probe.skill is not None:
            skills.setdefault(key, {}).setdefault(PROBE, probe.skill)
    return skills


def _ngrams(model_dir: Path) -> NgramModel | None:
    if not (model_dir / f"{ngrams.WEIGHTS}.safetensors").is_file():
        logger.warning("no %s.safetensors in %s: lid.176 tells languages alone", ngrams.WEIGHTS, model_dir)
        return None
    return NgramModel(model_dir)


class _Stopwatch:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.began = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + (now - self._last) * 1e3
        self._last = now


def _decision(
    state: State,
    chosen: str,
    refusal: Abstention | None,
    watch: _Stopwatch,
    passes: int,
    via: Via,
    router: TaskRouter,
    probe: ProbeAnswer | None,
    vectors: _Vectors,
) -> Decision:
    domains = state.domains
    by_task, by_domain = state.tasks.as_dict(), domains.as_dict()
    confidence = _clip(by_task.get(chosen, 0.0))
    domain_name: str | None = chosen.split("/")[0]
    if refusal is not None and refusal.reason != "expert_unavailable":
        domain_name = None if domains.none > 0.5 else domains.names[int(domains.probabilities.argmax())]
    domain_p = domains.none if domain_name is None else by_domain.get(domain_name, 0.0)
    in_scope = sum(by_task.values())
    share = (
        {n: p / in_scope for n, p in by_task.items()}
        if in_scope > 0
        else dict.fromkeys(by_task, 1 / len(by_task))
    )
    laps = watch.laps
    steps = [
        RouteStep(
            step="language",
            choice=state.language,
            probability=state.language_probability,
            ms=laps["language"],
        ),
        RouteStep(
            step="domain", choice=domain_name or NONE, probability=_clip(domain_p), ms=laps.get("domain", 0.0)
        ),
        RouteStep(
            step="task",
            choice=chosen if refusal is None else None,
            probability=confidence,
            ms=laps.get("encode", 0.0) + laps["task"],
        ),
    ]
    total = (time.perf_counter() - watch.began) * 1e3
    return Decision(
        language=state.language,
        language_probability=state.language_probability,
        domain=domain_name,
        domain_probabilities={n: _clip(p) for n, p in (by_domain | {NONE: domains.none}).items()},
        task=chosen if refusal is None else None,
        task_probabilities={n: _clip(p) for n, p in share.items()},
        confidence=confidence,
        abstained=refusal,
        steps=steps,
        timings=Timings(**laps, total=total),
        encoder_passes=passes,
        via=via,
        router=router,
        state=state,
        probe=probe,
        encoder=vectors.encoder,
        description_vector=vectors.description,
        text_vector=vectors.text,
        router_version=router.version,
    )


def _clip(p: float) -> float:
    return min(1.0, max(0.0, p))


__all__ = ["Action", "Decision", "GatingConfig", "GatingPipeline", "Observation"]
