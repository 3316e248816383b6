"""Makes gating's heads, router and probes from the weights and a registry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from moe_router.errors import ModelAssetError
from moe_router.gating import abstention, domain
from moe_router.gating.decision import Beliefs, Decision
from moe_router.gating.encoder import Encoder
from moe_router.gating.heads import Distribution, MixtureHead
from moe_router.gating.probe import Probe
from moe_router.gating.qnetwork import QNetwork
from moe_router.gating.task_router import PROBE, Policy, TaskRouter, Via
from moe_router.gating.versions import PRIOR_SKILLS, RouterWeights
from moe_router.gating.weights import Floats, OtherEncoderError, Weights
from moe_router.registry import Registry

logger = logging.getLogger(__name__)


def has_words(text: str) -> bool:
    """Whether it says anything, as `-`, `{}` and an emoji do not."""
    return any(map(str.isalnum, text))


@dataclass(frozen=True, slots=True)
class Heads:
    """What depends on the registry and on what the router has learned; replaced as a whole."""

    registry: Registry
    domains: MixtureHead
    router: TaskRouter
    probes: dict[str, Probe]
    left_out: frozenset[str]
    """tasks whose probe cannot be used: for `registry` they have none"""
    prototypes: dict[str, Floats]
    """the vectors of each task's phrasings, (phrasings, hidden)"""
    threshold: float
    """a request whose likeliest task is less likely is abstained from"""
    certain: dict[str, tuple[Floats, Distribution, Distribution, Beliefs]] = field(default_factory=dict)
    """what is known of a request whose task is given and of which nothing is encoded, by task"""
    decided: dict[tuple[str, str, Via], Decision] = field(default_factory=dict)
    """where its language is given, too, all such requests are decided alike"""


class Assembly:
    """Builds heads. Blocking, since phrasings that were not seen before are encoded."""

    def __init__(
        self,
        encoder: Encoder,
        domain_weights: Weights,
        model_dir: Path,
        policy: Policy,
        target_risk: float,
    ) -> None:
        """Takes what stays the same over all registries and versions of the router.

        Args:
            encoder: encodes the tasks' phrasings.
            domain_weights: of the domain head.
            model_dir: the folder that relative probe paths start from.
            policy: how the router weighs and explores.
            target_risk: share of answered requests that may go to a wrong task.
        """
        self._encoder = encoder
        self._domain_weights = domain_weights
        self._model_dir = model_dir
        self._policy = policy
        self._target_risk = target_risk
        self._phrasings: dict[str, Floats] = {}

    def build(self, registry: Registry, weights: RouterWeights, version: int | None) -> Heads:
        """All that a registry needs; a probe that cannot be used is left out, and said in the log.

        Raises:
            ModelAssetError: the weights do not fit, or a probe was made for another encoder.
        """
        probes = self._load_probes(registry)
        named = {key for key, task in registry.tasks.items() if task.probe is not None}
        left_out = frozenset(named - probes.keys())
        registry = registry.without_probes(left_out)
        prototypes = self.prototypes(registry)
        domains = domain.domain_head(registry, self._domain_weights, prototypes)
        for key in registry.tasks:
            if key not in prototypes and key not in weights.tasks.meta["classes"]:
                logger.warning("task %s has no description and no weights: only options.task reaches it", key)
        router = self.router(registry, weights, probes, prototypes, version)
        return Heads(registry, domains, router, probes, left_out, prototypes, self._threshold(weights))

    def renewed(self, heads: Heads, weights: RouterWeights, version: int | None) -> Heads:
        """The same for other weights of the router: no file is read anew.

        Raises:
            ModelAssetError: the weights do not fit.
        """
        router = self.router(heads.registry, weights, heads.probes, heads.prototypes, version)
        return replace(heads, router=router, threshold=self._threshold(weights), certain={}, decided={})

    def _threshold(self, weights: RouterWeights) -> float:
        return abstention.threshold_for(weights.tasks.meta, self._target_risk)

    def router(
        self,
        registry: Registry,
        weights: RouterWeights,
        probes: Mapping[str, Probe],
        prototypes: Mapping[str, Floats],
        version: int | None,
    ) -> TaskRouter:
        """The router alone.

        Args:
            registry: whose tasks and experts it knows.
            weights: what it has learned.
            probes: by task.
            prototypes: what `prototypes` makes of the registry.
            version: the number of the weights; None for the shipped ones.

        Raises:
            ModelAssetError: the weights do not fit.
        """
        return TaskRouter(
            registry,
            weights.tasks,
            QNetwork(weights.q_weights, self._encoder.hidden),
            prototypes,
            skills=known_skills(weights.q_weights.meta, probes),
            policy=self._policy,
            version=version,
        )

    def prototypes(self, registry: Registry) -> dict[str, Floats]:
        """The vectors of each task's description and examples; a task without any has none."""
        phrases = {
            key: [phrase for phrase in (task.description, *task.examples) if phrase and has_words(phrase)]
            for key, task in registry.tasks.items()
        }
        new = sorted({p for own in phrases.values() for p in own} - self._phrasings.keys())
        if new:
            self._phrasings.update(zip(new, self._encoder.encode(new), strict=True))
        return {key: np.stack([self._phrasings[p] for p in own]) for key, own in phrases.items() if own}

    def _load_probes(self, registry: Registry) -> dict[str, Probe]:
        probes = {}
        for key, task in registry.tasks.items():
            if task.probe is None:
                continue
            base, encoder = self._model_dir / task.probe.path, self._encoder
            try:
                probes[key] = Probe(base, task.label_set, encoder=encoder.identity, hidden=encoder.hidden)
            except OtherEncoderError:
                raise
            except ModelAssetError as error:  # one task's file must not stop the others
                logger.error("%s goes without its probe: %s", key, error.detail)
        return probes


def known_skills(meta: Mapping[str, Any], probes: Mapping[str, Probe]) -> dict[str, dict[str, float]]:
    """Share of right answers by task and name: what the weights' description says, and the probes'.

    What was learned of a probe holds for that one: where another was measured before the feedback, the
    probe has been fitted anew since.
    """
    skills = {key: dict(own) for key, own in meta.get("skills", {}).items()}
    before = meta.get(PRIOR_SKILLS)
    for key, probe in probes.items():
        if probe.skill is None:
            continue
        own = skills.setdefault(key, {})
        if PROBE not in own or (before is not None and before.get(key, {}).get(PROBE) != probe.skill):
            own[PROBE] = probe.skill
    return skills
