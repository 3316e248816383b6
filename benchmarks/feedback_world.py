"""The world of the feedback benchmark: a stream of requests, experts of set skill, and callers who judge.

Four in ten requests ask for one task by an internal product name that no training phrasing holds; two in
ten are for a task with two experts whose told skills are upside down; the rest is as in training.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from moe_router.gating import abstention
from moe_router.gating.heads import MixtureHead
from moe_router.gating.task_router import Observation, TaskRouter
from moe_router.gating.weights import Floats
from moe_router.gating.wording import Wording, joined
from moe_router.registry import Registry
from moe_router.training.embedded import Embedded
from moe_router.training.feedback.replay import Replay, Step
from moe_router.training.feedback.states import state_at
from moe_router.training.requests import Composer, load_texts
from moe_router.training.simulation import vectors_of

NAMED = "retail/product_relevance"
FLIPPED = "general/topic_classification"
EXPERTS = {"topic-first": (0.9, 0.45), "topic-second": (0.6, 0.9)}
"""Told and true skill of the two experts of `FLIPPED`."""
SKILL = 0.85
"""Of every other expert, told and true."""
COST_WEIGHT = 0.05
CALLERS = 20
EXPLORATION = 0.1
WORDINGS = (
    "Quillon, please", "run Quillon", "do the Quillon check", "what does Quillon say?", "quillon this",
    "apply quillon scoring to the pair", "QUILLON", "need the quillon verdict", "Bitte einmal Quillon",
    "Quillon-Prüfung durchführen", "was sagt Quillon dazu?", "lance Quillon dessus",
    "fais le contrôle Quillon",
    "haz el chequeo Quillon", "¿qué dice Quillon?", "esegui Quillon", "fare il controllo Quillon",
    "roda o Quillon nisso", "voer de Quillon-controle uit", "zrób test Quillon", "проверь по Quillon",
    "что скажет Quillon?", "Quillon kontrolü yap", "نفّذ فحص Quillon", "Quillon जाँच करें", "做一下 Quillon 检查",
    "Quillonチェックをお願いします", "Quillon 검사 해줘", "chạy kiểm tra Quillon",
    "jalankan pemeriksaan Quillon",
    "fanya ukaguzi wa Quillon", "بررسی Quillon را انجام بده", "зроби перевірку Quillon", '{"op": "quillon"}',
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the stream."""

    description: str
    vectors: tuple[Floats | None, Floats | None]
    target: str
    caller: str
    luck: dict[str, bool]
    """whether each expert of the target would answer right"""


def world_registry(path: Path) -> Registry:
    """The registry's tasks without probes, each with one expert, `FLIPPED` with two."""
    found: dict[str, Any] = copy.deepcopy(json.loads(path.read_text(encoding="utf-8")))
    for key, task in found["tasks"].items():
        for name in ("probe", "language_mapping", "supported_languages"):
            task.pop(name, None)
        names = EXPERTS if key == FLIPPED else {key: ()}
        model = task["base_model_key"]
        task["experts"] = [{"name": name, "base_model_key": model, "cost": 1.0} for name in names]
    return Registry.model_validate(found)


def told_skills(registry: Registry) -> dict[str, dict[str, float]]:
    """What the router is told of the experts at first."""
    plain = {key: {key: SKILL} for key in registry.tasks if key != FLIPPED}
    return plain | {FLIPPED: {name: told for name, (told, _) in EXPERTS.items()}}


def true_skills(registry: Registry) -> dict[str, dict[str, float]]:
    """How often they are right."""
    return told_skills(registry) | {FLIPPED: {name: true for name, (_, true) in EXPERTS.items()}}


def stream(count: int, registry: Registry, data: Path | None, embed: Embedded, seed: int) -> list[Asked]:
    """Requests in the order of their arrival."""
    rng = np.random.default_rng(seed)
    composer = Composer(load_texts(data, "train", 10, seed), "train", seed)
    plain = [r for r in composer.epoch(300) if r.target in registry.tasks and r.description is not None]
    flipped = [r for r in plain if r.target == FLIPPED]
    embed([r.text.text for r in plain if r.text] + [r.description.text for r in plain if r.description])
    named = embed(list(WORDINGS))
    texts = [vectors_of(r, embed)[1] for r in plain if r.target == NAMED]
    skills, found = true_skills(registry), []
    for index in range(count):
        kind = rng.random()
        if kind < 0.4:
            wording = int(rng.integers(len(WORDINGS)))
            asked, pair = WORDINGS[wording], (named[wording], texts[rng.integers(len(texts))])
            target = NAMED
        else:
            pool = flipped if kind < 0.6 else plain
            request = pool[rng.integers(len(pool))]
            pair, target = vectors_of(request, embed), request.target
            asked = request.asked or ""
        luck = {name: bool(rng.random() < skill) for name, skill in skills[target].items()}
        found.append(Asked(asked, pair, target, f"caller-{index % CALLERS}", luck))
    return found


def best_reward(asked: Asked, registry: Registry) -> float:
    """The expected reward of who knows the world: the right task's better expert, one call."""
    return max(true_skills(registry)[asked.target].values()) - COST_WEIGHT


def serve(
    asked: Asked, router: TaskRouter, domains: MixtureHead, words: Wording | None, threshold: float, at: float
) -> tuple[float, dict[str, Any]]:
    """Answers a request as the coordinator does: the reward, and the judged decision as a row."""
    row: dict[str, Any] = {
        "caller": asked.caller, "judged_at": at, "vectors": asked.vectors, "task": None, "steps": (),
        "propensity": 1.0, "correct_task": asked.target, "correct_label": None,
    }  # fmt: skip
    hidden = next(len(v) for v in asked.vectors if v is not None)
    state = state_at(router, domains, replay_of([row], hidden), 0)
    state = replace(state, tasks=joined(words, asked.description, state.tasks))
    chosen = router.choose_task(state)
    if abstention.judge(state.tasks, chosen, threshold) is not None:
        return 0.0, row
    return _answer(asked, router, state, chosen, row)


def _answer(
    asked: Asked, router: TaskRouter, state: Any, task: str, row: dict[str, Any]
) -> tuple[float, dict[str, Any]]:
    seen: list[Observation] = []
    propensity = 1.0
    while True:
        action = router.next_action(state, task, seen, reachable=lambda _: True)
        propensity *= action.propensity
        if action.kind != "expert":
            break
        name = action.expert.name if action.expert else ""
        right = task == asked.target and asked.luck[name]
        seen.append(Observation(action, "right" if right else "wrong", 0.8, 0.6))
    accepted = action.answer
    steps = tuple(
        Step(f"expert:{o.name}", o.label, o.confidence, o.margin, 1.0, accepted=index == accepted)
        for index, o in enumerate(seen)
    )
    reward = float(accepted is not None and seen[accepted].label == "right") - COST_WEIGHT * len(seen)
    label = "right" if task == asked.target else None
    return reward, row | {"task": task, "steps": steps, "propensity": propensity, "correct_label": label}


def replay_of(rows: Sequence[dict[str, Any]], hidden: int) -> Replay:
    """Rows as the database hands them out, newest first where they are given so."""
    count = len(rows)
    ones, none = np.ones(count, np.float32), np.zeros((count, 0), np.float32)
    zero = np.zeros(hidden, np.float32)

    def column(name: str) -> tuple[Any, ...]:
        return tuple(row[name] for row in rows)

    def vectors(place: int) -> Floats:
        found = [row["vectors"][place] for row in rows]
        return np.array([zero if v is None else v for v in found], np.float32).reshape(count, hidden)

    return Replay(
        request_id=tuple(str(i) for i in range(count)), caller=column("caller"),
        decided_at=np.array(column("judged_at"), float), judged_at=np.array(column("judged_at"), float),
        description=vectors(0), text=vectors(1), language=("en",) * count, language_probability=ones,
        domains=(), domain_probability=none, tasks=(), task_probability=none, none_probability=ones * 0,
        task=column("task"), task_fixed=np.zeros(count, np.bool_), via=("auto",) * count,
        action=tuple(r["steps"][0].action if r["steps"] else None for r in rows),
        propensity=np.array(column("propensity"), np.float32), steps=column("steps"),
        fault=(None,) * count, router_version=(None,) * count, correct_task=column("correct_task"),
        correct_label=column("correct_label"), score=np.full(count, np.nan, np.float32),
    )  # fmt: skip
