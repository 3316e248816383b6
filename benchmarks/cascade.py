"""Probe and LLM expert as actions: quality over the share of requests for which the LLM is called.

Both answer real validation texts of four datasets, which neither was fitted on. On the first of them their
skills are measured; on the others the shipped Q-network decides at several cost weights, and is compared
with a fixed threshold on the probe's confidence, a logistic head that learns on the first texts when to
call, LinUCB on the same, always the probe, and always the LLM. Curves are compared at equal shares of calls,
between two points as if the request's policy were drawn by lot, and beyond the last one as there; the
intervals are of a paired bootstrap over the texts. The logistic head and LinUCB hear the LLM together with
the probe, as the router does.

    python benchmarks/cascade.py --data DIR
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from moe_router.training.experts.examples import Row, halves, read_rows

TASKS = {
    "umsab": "social/sentiment_analysis", "sib200": "general/topic_classification",
    "hatecheck": "social/hate_speech", "banking77": "finance/intent_detection",
}  # fmt: skip
COST_WEIGHTS = (0.0, *np.geomspace(0.001, 0.5, 50).round(5).tolist())
"""As many as it takes for the curve to have points everywhere."""
THRESHOLDS = np.linspace(0.0, 1.0, 101)
SHARES = np.linspace(0.0, 1.0, 101)
"""Of LLM calls, at which curves are compared."""
RESAMPLES = 2000
Point = tuple[float, float]
"""Share of LLM calls, share of right answers."""


@dataclass(frozen=True)
class Outcome:
    """What a policy does with each of the cases."""

    called: np.ndarray
    """(cases,) bool: whether it calls the LLM"""
    right: np.ndarray
    """(cases,) bool"""

    @property
    def point(self) -> Point:
        return float(self.called.mean()), float(self.right.mean())


@dataclass(frozen=True)
class Case:
    """A text, gating's decision with the probe's answer, and the LLM's answer."""

    label: str
    decision: Decision
    llm: ExpertAnswer
    heard: ExpertAnswer
    """what the service makes of it: the LLM's answer, pooled with the probe's"""

    @property
    def probe_right(self) -> bool:
        return self.decision.probe is not None and self.decision.probe.label == self.label

    @property
    def llm_right(self) -> bool:
        return self.llm.result == self.label

    @property
    def heard_right(self) -> bool:
        return self.heard.result == self.label

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
        llm = await pool.classify(expert, wanted)
        heard = decision.probe.heard_with(expert, llm) if decision.probe is not None else llm
        return Case(row.label, decision, llm, heard)

    return list(await asyncio.gather(*map(one, own)))


def with_skills(
    gating: GatingPipeline, registry: Registry, skills: dict[str, dict[str, float]], weight: float
) -> TaskRouter:
    old = gating.heads.router
    return TaskRouter(registry, gating.shipped.tasks, old.qnetwork, {}, skills=skills, policy=Policy(weight))


def cascade(cases: Sequence[Case], router: TaskRouter) -> Outcome:
    called, right = np.zeros(len(cases), bool), np.zeros(len(cases), bool)
    for index, case in enumerate(cases):
        seen: list[Observation] = []
        labels: list[bool] = []
        task = case.decision.task or ""
        while True:
            action = router.next_action(case.decision.state, task, seen, reachable=lambda _: True)
            if action.kind == "accept":
                right[index] = labels[action.answer or 0]
                break
            if action.kind == "probe":
                probe = case.decision.probe
                if probe is None:
                    raise RuntimeError(f"{task} has no probe in the registry")
                seen.append(Observation(action, probe.label, probe.confidence, probe.margin))
                labels.append(case.probe_right)
            else:
                best = sorted((case.heard.probabilities or {}).values(), reverse=True)
                margin = best[0] - best[1] if len(best) > 1 else 0.0
                pooled = case.heard is not case.llm
                seen.append(Observation(action, case.heard.result, case.heard.confidence, margin, pooled))
                labels.append(case.heard_right)
                called[index] = True
    return Outcome(called, right)


def where(cases: Sequence[Case], calls_llm: Callable[[Case], bool], *, pooled: bool = False) -> Outcome:
    """Calls the LLM where it says so; `pooled`: what it says is heard together with the probe."""
    called = [calls_llm(case) for case in cases]
    asked = [case.heard_right if pooled else case.llm_right for case in cases]
    right = [a if call else c.probe_right for c, a, call in zip(cases, asked, called, strict=True)]
    return Outcome(np.array(called), np.array(right))


def thresholds(cases: Sequence[Case], *, pooled: bool = False) -> list[Outcome]:
    """Calls the LLM where the probe's confidence is below a fixed bound."""

    def unsure(case: Case, bound: float) -> bool:
        return case.decision.probe is not None and case.decision.probe.confidence < bound

    return [where(cases, partial(unsure, bound=bound), pooled=pooled) for bound in THRESHOLDS]


def logistic(train: Sequence[Case], cases: Sequence[Case]) -> list[Outcome]:
    """Calls the LLM where its chance to be right, less the probe's, passes a price."""
    heads = []
    for right in ([c.probe_right for c in train], [c.heard_right for c in train]):
        x = np.array([c.context for c in train])
        head = LogisticRegression().fit(x, right) if len(set(right)) > 1 else None
        rate = float(np.mean(right))
        heads.append((head, rate))

    def gain(case: Case) -> float:
        p = [h.predict_proba([case.context])[0, 1] if h is not None else rate for h, rate in heads]
        return float(p[1] - p[0])

    gains = {id(case): gain(case) for case in cases}
    return [where(cases, lambda c, w=w: gains[id(c)] > w, pooled=True) for w in COST_WEIGHTS]


def linucb(train: Sequence[Case], cases: Sequence[Case]) -> list[Outcome]:
    outcomes = []
    for weight in COST_WEIGHTS:
        bandit = LinUCB(2, 3)
        for case in train:
            x = np.array(case.context)
            arm = bandit.choose(x)
            bandit.update(arm, x, case.heard_right - weight if arm else float(case.probe_right))
        bandit.alpha = 0.0
        outcomes.append(where(cases, lambda c, own=bandit: own.choose(np.array(c.context)) == 1, pooled=True))
    return outcomes


def at_shares(outcomes: Sequence[Outcome], weights: np.ndarray) -> np.ndarray:
    """A curve's accuracy at each of SHARES: (resamples, shares); NaN before its first point.

    Args:
        outcomes: of the policies along the curve.
        weights: (resamples, cases), how often a case counts.
    """
    total = weights.sum(axis=1)
    shares = np.stack([weights @ o.called for o in outcomes], axis=1) / total[:, None]
    rights = np.stack([weights @ o.right for o in outcomes], axis=1) / total[:, None]
    order = np.lexsort((rights, shares))
    curves = np.empty((len(weights), len(SHARES)))
    for row, (share, right, ranks) in enumerate(zip(shares, rights, order, strict=True)):
        curves[row] = np.interp(SHARES, share[ranks], right[ranks], left=np.nan)
    return curves


def advantage(ours: Sequence[Outcome], others: Sequence[Outcome]) -> dict[str, Any]:
    """How far a curve lies above another: on average over SHARES, and where that is least.

    Both with 95 % intervals; that of the least is pointwise, of a place that was chosen on the same texts.
    """
    cases = len(ours[0].right)
    drawn = np.random.default_rng(0).multinomial(cases, np.full(cases, 1 / cases), RESAMPLES)
    as_seen = np.ones((1, cases))
    (seen,) = at_shares(ours, as_seen) - at_shares(others, as_seen)
    resampled = at_shares(ours, drawn) - at_shares(others, drawn)
    least = int(np.nanargmin(seen))
    return {
        "mean": round(float(np.nanmean(seen)), 4),
        "mean_interval": interval(np.nanmean(resampled, axis=1)),
        "least": round(float(seen[least]), 4),
        "least_at": round(float(SHARES[least]), 2),
        "least_interval": interval(resampled[:, least]),
    }


def gain(ours: Outcome, other: Outcome) -> dict[str, Any]:
    """How much more often one policy is right than another, with a 95 % interval."""
    more = ours.right.astype(int) - other.right.astype(int)
    drawn = np.random.default_rng(0).integers(len(more), size=(RESAMPLES, len(more)))
    return {"mean": round(float(more.mean()), 4), "mean_interval": interval(more[drawn].mean(axis=1))}


def interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, (0.025, 0.975)).round(4).tolist()
    return low, high


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
            skill = (sum(c.heard_right for c in learnt) + 0.75 * 4) / (train + 4)
            probe_skill = (sum(c.probe_right for c in learnt) + 0.75 * 4) / (train + 4)
            skills = {task: {expert.name: skill, "probe": probe_skill}}
            threshold = thresholds(cases)
            curve = [cascade(cases, with_skills(gating, registry, skills, w)) for w in COST_WEIGHTS]
            curves = {
                "cascade": curve, "threshold": threshold, "logistic": logistic(learnt, cases),
                "linucb": linucb(learnt, cases),
            }  # fmt: skip
            llm, both = (where(cases, lambda _: True, pooled=pooled) for pooled in (False, True))
            result["tasks"][task] = {
                "texts": len(cases),
                "skills": {k: round(v, 4) for k, v in skills[task].items()},
                "always_probe": where(cases, lambda _: False).point,
                "always_llm": llm.point,
                **{kind: [outcome.point for outcome in outcomes] for kind, outcomes in curves.items()},
                "always_both": both.point,
                "both_above_llm": gain(both, llm),
                "above_threshold": advantage(curve, threshold),
                "above_pooled_threshold": advantage(curve, thresholds(cases, pooled=True)),
            }
            print(
                task, result["tasks"][task]["always_probe"], result["tasks"][task]["always_llm"], flush=True
            )
    finally:
        await pool.aclose()
        await gating.aclose()
    return result


def told(above: dict[str, Any]) -> str:
    return f"{bounds(above, 'mean')} | {bounds(above, 'least')} at {above['least_at']:.2f}"


def bounds(found: dict[str, Any], name: str) -> str:
    low, high = found[f"{name}_interval"]
    return f"{found[name]:+.3f} ({low:+.3f} to {high:+.3f})"


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
        "| task | texts | probe | LLM | both, pooled | more than the LLM | cascade: LLM calls, accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, own in result["tasks"].items():
        share, quality = own["cascade"][default]
        always = " | ".join(f"{own[f'always_{way}'][1]:.3f}" for way in ("probe", "llm", "both"))
        more = bounds(own["both_above_llm"], "mean")
        lines.append(f"| {task} | {own['texts']} | {always} | {more} | {share:.2f}, {quality:.3f} |")
    lines += [
        "",
        "| cascade above, at equal calls | a threshold: mean | least | one that pools, too: mean | least |",
        "|---|---|---|---|---|",
    ]
    for task, own in result["tasks"].items():
        both = [told(own[name]) for name in ("above_threshold", "above_pooled_threshold")]
        lines.append(f"| {task} | {' | '.join(both)} |")
    lines += ["", "![Quality over the share of LLM calls](cascade.png)"]
    plot(result)
    reporting.write("cascade", result, "\n".join(lines))


if __name__ == "__main__":
    main()
