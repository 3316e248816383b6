"""Probe and LLM expert as actions: quality over the share of requests for which the LLM is called.

Both answer real validation texts of four datasets, which neither was fitted on. On the first of them their
skills are measured; on the others the shipped Q-network decides at several cost weights, and is compared
with a fixed threshold on the probe's confidence, a logistic head that learns on the first texts when to
call, LinUCB on the same, always the probe, and always the LLM.

    python benchmarks/cascade.py --data DIR
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from linucb import LinUCB
from sklearn.linear_model import LogisticRegression

from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.contracts import ExpertAnswer, ExpertRequest
from moe_router.experts.lru_pool import LruModelPool
from moe_router.experts.model_host import PoolConfig
from moe_router.gating.decision import Decision
from moe_router.gating.pipeline import GatingConfig, GatingPipeline
from moe_router.gating.task_router import Observation, Policy, TaskRouter
from moe_router.registry import Registry
from moe_router.training.expert import halves
from moe_router.training.expert_examples import Row, read_rows

TASKS = {
    "umsab": "social/sentiment_analysis", "sib200": "general/topic_classification",
    "hatecheck": "social/hate_speech", "banking77": "finance/intent_detection",
}  # fmt: skip
COST_WEIGHTS = (0.0, *np.geomspace(0.001, 0.5, 50).round(5).tolist())
"""As many as it takes for the curve to have points everywhere."""
THRESHOLDS = np.linspace(0.0, 1.0, 21)
Point = tuple[float, float]
"""Share of LLM calls, share of right answers."""


@dataclass(frozen=True)
class Case:
    """A text, gating's decision with the probe's answer, and the LLM's answer."""

    label: str
    decision: Decision
    llm: ExpertAnswer

    @property
    def probe_right(self) -> bool:
        return self.decision.probe is not None and self.decision.probe.label == self.label

    @property
    def llm_right(self) -> bool:
        return self.llm.result == self.label

    @property
    def context(self) -> list[float]:
        probe = self.decision.probe
        return [1.0, probe.confidence, probe.margin] if probe is not None else [1.0, 0.0, 0.0]


def rows(data: Path, name: str, count: int) -> list[Row]:
    """Texts of the half of the validation file that chose nothing in the experts' training."""
    every = halves(read_rows(data / name / "validation.jsonl.gz"))[1]
    chosen = np.random.default_rng(0).permutation(len(every))[:count]
    return [every[index] for index in chosen]


async def ask(gating: GatingPipeline, pool: LruModelPool, task: str, own: Sequence[Row]) -> list[Case]:
    async def one(row: Row) -> Case:
        decision = await gating.decide(
            row.text, None, language=row.language, task=task, served=lambda _: True
        )
        (expert,) = gating.registry.experts_for(task, row.language)
        wanted = ExpertRequest(task_key=task, text=row.text, language=row.language, return_probabilities=True)
        return Case(row.label, decision, await pool.classify(expert, wanted))

    return list(await asyncio.gather(*map(one, own)))


def with_skills(
    gating: GatingPipeline, registry: Registry, skills: dict[str, dict[str, float]], weight: float
) -> TaskRouter:
    old = gating.heads.router
    return TaskRouter(registry, gating.shipped.tasks, old.qnetwork, {}, skills=skills, policy=Policy(weight))


def cascade(cases: Sequence[Case], router: TaskRouter) -> Point:
    calls, right = 0, 0
    for case in cases:
        seen: list[Observation] = []
        labels: list[bool] = []
        task = case.decision.task or ""
        while True:
            action = router.next_action(case.decision.state, task, seen, reachable=lambda _: True)
            if action.kind == "accept":
                right += labels[action.answer or 0]
                break
            if action.kind == "probe":
                probe = case.decision.probe
                if probe is None:
                    raise RuntimeError(f"{task} has no probe in the registry")
                seen.append(Observation(action, probe.label, probe.confidence, probe.margin))
                labels.append(case.probe_right)
            else:
                best = sorted((case.llm.probabilities or {}).values(), reverse=True)
                margin = best[0] - best[1] if len(best) > 1 else 0.0
                seen.append(Observation(action, case.llm.result, case.llm.confidence, margin))
                labels.append(case.llm_right)
                calls += 1
    return calls / len(cases), right / len(cases)


def where(cases: Sequence[Case], calls_llm: Callable[[Case], bool]) -> Point:
    called = [calls_llm(case) for case in cases]
    right = [c.llm_right if call else c.probe_right for c, call in zip(cases, called, strict=True)]
    return float(np.mean(called)), float(np.mean(right))


def logistic(train: Sequence[Case], cases: Sequence[Case]) -> list[Point]:
    """Calls the LLM where its chance to be right, less the probe's, passes a price."""
    heads = []
    for right in ([c.probe_right for c in train], [c.llm_right for c in train]):
        x = np.array([c.context for c in train])
        head = LogisticRegression().fit(x, right) if len(set(right)) > 1 else None
        rate = float(np.mean(right))
        heads.append((head, rate))

    def gain(case: Case) -> float:
        p = [h.predict_proba([case.context])[0, 1] if h is not None else rate for h, rate in heads]
        return float(p[1] - p[0])

    gains = {id(case): gain(case) for case in cases}
    return [where(cases, lambda c, w=w: gains[id(c)] > w) for w in COST_WEIGHTS]


def linucb(train: Sequence[Case], cases: Sequence[Case]) -> list[Point]:
    points = []
    for weight in COST_WEIGHTS:
        bandit = LinUCB(2, 3)
        for case in train:
            x = np.array(case.context)
            arm = bandit.choose(x)
            bandit.update(arm, x, case.llm_right - weight if arm else float(case.probe_right))
        bandit.alpha = 0.0
        points.append(where(cases, lambda c, own=bandit: own.choose(np.array(c.context)) == 1))
    return points


def below(curve: Sequence[Point], threshold: Sequence[Point]) -> float:
    """The largest distance by which a curve, from its first point on, lies below another at as many calls."""
    first = min(share for share, _ in curve)
    gaps = [
        quality - max(q for s, q in curve if s <= share + 1e-9)
        for share, quality in threshold
        if share >= first - 1e-9
    ]
    return max(gaps, default=0.0)


def registry_with_probes() -> Registry:
    """The demo's registry, with the probes switched on."""
    written = json.loads(Path("config/demo/experts_registry.json").read_text(encoding="utf-8"))
    for task in TASKS.values():
        written["tasks"][task]["probe"] = {"path": f"probes/{task.replace('/', '__')}"}
    return Registry.model_validate(written)


async def measure(data: Path, train: int, count: int) -> dict[str, Any]:
    registry = registry_with_probes()
    gating = GatingPipeline.load(registry, GatingConfig(DEFAULT_CACHE.expanduser()))
    config = PoolConfig(
        adapter_root=Path("moe_router/experts/llms/adapters"),
        cache_dir=DEFAULT_CACHE.expanduser(),
        worker_id="local",
    )
    pool = LruModelPool(registry, replace(config, max_queue=4 * (train + count)))
    result: dict[str, Any] = {"train": train, "validation": count, "tasks": {}}
    try:
        for name, task in TASKS.items():
            # Probe and adapter have seen the training texts: there their skills would look too good.
            asked = await ask(gating, pool, task, rows(data, name, train + count))
            learnt, cases = asked[:train], asked[train:]
            (expert,) = registry.experts_for(task, "en")
            skill = (sum(c.llm_right for c in learnt) + 0.75 * 4) / (train + 4)
            probe_skill = (sum(c.probe_right for c in learnt) + 0.75 * 4) / (train + 4)
            skills = {task: {expert.name: skill, "probe": probe_skill}}
            threshold = [
                where(cases, lambda c, t=t: c.decision.probe is not None and c.decision.probe.confidence < t)
                for t in THRESHOLDS
            ]
            curve = [cascade(cases, with_skills(gating, registry, skills, w)) for w in COST_WEIGHTS]
            result["tasks"][task] = {
                "skills": {k: round(v, 4) for k, v in skills[task].items()},
                "always_probe": where(cases, lambda _: False),
                "always_llm": where(cases, lambda _: True),
                "cascade": curve, "threshold": threshold, "logistic": logistic(learnt, cases),
                "linucb": linucb(learnt, cases),
                "cascade_below_threshold_at_most": round(below(curve, threshold), 4),
            }  # fmt: skip
            print(
                task, result["tasks"][task]["always_probe"], result["tasks"][task]["always_llm"], flush=True
            )
    finally:
        await pool.aclose()
        await gating.aclose()
    return result


def plot(result: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(2, 2, figsize=(9, 7))
    for axes, (task, own) in zip(grid.flat, result["tasks"].items(), strict=True):
        for name, style in (("cascade", "o-"), ("threshold", ".-"), ("logistic", "x"), ("linucb", "+")):
            points = sorted(own[name])
            axes.plot([p[0] for p in points], [p[1] for p in points], style, label=name)
        for name in ("always_probe", "always_llm"):
            axes.plot(*own[name], "k^" if name == "always_llm" else "kv", label=name.replace("_", " "))
        axes.set(xlabel="share of LLM calls", ylabel="accuracy", title=task)
    grid.flat[0].legend()
    figure.tight_layout()
    figure.savefig(reporting.RESULTS / "cascade.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--train",
        type=int,
        default=100,
        help="validation texts of each dataset that skills, LinUCB and the logistic head learn from",
    )
    parser.add_argument("--count", type=int, default=300, help="further validation texts, to judge on")
    arguments = parser.parse_args()
    result = asyncio.run(measure(arguments.data, arguments.train, arguments.count))
    default = min(range(len(COST_WEIGHTS)), key=lambda index: abs(COST_WEIGHTS[index] - Policy().cost_weight))
    lines = [
        "| task | probe | LLM | cascade: LLM calls, accuracy | best threshold | below it at most |",
        "|---|---|---|---|---|---|",
    ]
    for task, own in result["tasks"].items():
        share, quality = own["cascade"][default]
        best = max(q for _, q in own["threshold"])
        lines.append(
            f"| {task} | {own['always_probe'][1]:.3f} | {own['always_llm'][1]:.3f} "
            f"| {share:.2f}, {quality:.3f} | {best:.3f} | {own['cascade_below_threshold_at_most']:.3f} |"
        )
    lines += ["", "![Quality over the share of LLM calls](cascade.png)"]
    plot(result)
    reporting.write("cascade", result, "\n".join(lines))


if __name__ == "__main__":
    main()
