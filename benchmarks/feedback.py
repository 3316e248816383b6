"""Learning from simulated feedback: regret on a shifted stream, and poison from one caller.

On the real encoder and the shipped weights: python benchmarks/feedback.py --data DIR
Compared: the learner, run every 250 rows; the live router frozen; and LinUCB on (task, expert) arms,
cold, warm-started on the training requests with every arm's reward, and warm with each row's right task
told to all arms, as our learner is told it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from feedback_world import (
    CALLERS,
    COST_WEIGHT,
    EXPLORATION,
    SKILL,
    WORDINGS,
    Asked,
    best_reward,
    replay_of,
    serve,
    stream,
    told_skills,
    world_registry,
)
from linucb import LinUCB

from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.gating import abstention
from moe_router.gating.pipeline import MODELS, GatingConfig, GatingPipeline
from moe_router.gating.task_router import Policy
from moe_router.gating.versions import RouterWeights
from moe_router.gating.weights import Floats, Weights
from moe_router.training.embedded import Embedded
from moe_router.training.feedback.held_out import Run
from moe_router.training.feedback.judging import guarded
from moe_router.training.feedback.learner import HELD_OUT_BY, LearnRun, Serving, learn
from moe_router.training.feedback.memory import Memory, remember
from moe_router.training.feedback.remembered import RememberingEncoder
from moe_router.training.simulation import vectors_of

REGISTRY = Path("config/demo/experts_registry.json")
PER_CALLER = 500
TARGET_RISK = 0.05


class Bench:
    """What all parts share."""

    def __init__(self, data: Path | None, models: Path, seed: int) -> None:
        """Loads gating and encodes what must not be forgotten."""
        self.data, self.seed = data, seed
        self.registry = world_registry(REGISTRY)
        cache = DEFAULT_CACHE.expanduser()
        policy = Policy(cost_weight=COST_WEIGHT, exploration=EXPLORATION)
        self.gating = GatingPipeline.load(
            self.registry, GatingConfig(cache_dir=cache, model_dir=models, policy=policy)
        )
        encoder = RememberingEncoder(self.gating.encoder.encoder, cache)
        self.embed = Embedded(encoder, lambda *_: None)
        self.memory = remember(data, self.embed)
        # Other compositions of the validation families than those that the guard decides by.
        self.judges = remember(data, self.embed, seed=seed + 1000)
        encoder.save()
        own = self.gating.shipped
        meta = dict(own.q_weights.meta) | {"skills": told_skills(self.registry)}
        self.shipped = RouterWeights(own.tasks, Weights(own.q_weights.arrays, meta))
        self.hidden = self.gating.encoder.encoder.hidden

    def serving(self, live: RouterWeights) -> Serving:
        """What the learner takes."""
        return Serving(
            live, self.shipped, self.gating.heads.domains, self.gating.words, self.gating.router_of,
            TARGET_RISK,
        )  # fmt: skip

    def accuracy(self, weights: RouterWeights) -> float:
        """On the old tasks, by requests that the guard does not decide by."""
        router = self.gating.router_of(weights)
        return guarded(router, self.gating.heads.domains, self.gating.words, self.judges).accuracy


def ours(bench: Bench, requests: list[Asked], every: int | None) -> tuple[list[float], dict[str, Any]]:
    """Rewards of the router that learns every so many rows, or never, and what the runs said."""
    live, rewards, rows, runs = bench.shipped, [], [], []
    past: list[Run] = []
    router = bench.gating.router_of(live)
    for index, asked in enumerate(requests):
        threshold = abstention.threshold_for(live.tasks.meta, TARGET_RISK)
        reward, row = serve(
            asked, router, bench.gating.heads.domains, bench.gating.words, threshold, float(index)
        )
        rewards.append(reward)
        rows.append(row)
        if every and (index + 1) % every == 0:
            began = time.perf_counter()
            found = learn(
                replay_of(rows[::-1], bench.hidden),
                bench.serving(live),
                bench.memory,
                LearnRun(),
                past,
            )
            if found is not None:
                past.append((float(index), found.metrics[HELD_OUT_BY]))
            passed = found is not None and found.verdict.passed
            if found is not None and passed:
                live = found.weights
                router = bench.gating.router_of(live)
            runs.append({
                "rows": index + 1, "promoted": passed, "seconds": round(time.perf_counter() - began, 1),
                "metrics": found.metrics if found else None,
            })  # fmt: skip
            print(runs[-1]["rows"], passed, found.verdict.reasons if found else None, flush=True)
    return rewards, {"runs": runs, "accuracy": bench.accuracy(live)}


def linucb(bench: Bench, requests: list[Asked], *, warm: bool, told: bool) -> list[float]:
    """Rewards of LinUCB on the same stream."""
    arms = [(key, e.name) for key in bench.registry.tasks for e in bench.registry.all_experts(key)]
    bandit = LinUCB(len(arms), 2 * bench.hidden + 1)
    if warm:
        bandit.warm(*_training(bench.memory, arms, bench))
    rewards = []
    for asked in requests:
        x = _context(asked.vectors, bench.hidden)
        arm = bandit.choose(x)
        task, name = arms[arm]
        reward = float(task == asked.target and asked.luck.get(name, False)) - COST_WEIGHT
        rewards.append(reward)
        bandit.update(arm, x, reward)
        if told:
            for other, (key, _) in enumerate(arms):
                if other != arm:
                    bandit.update(other, x, (SKILL if key == asked.target else 0.0) - COST_WEIGHT)
    return rewards


def _training(memory: Memory, arms: list[tuple[str, str]], bench: Bench) -> tuple[Any, Any]:
    skills = told_skills(bench.registry)
    contexts = [_context(vectors_of(r, memory.embed), bench.hidden) for r in memory.requests]
    rewards = [
        [(skills[key][name] if key == r.target else 0.0) - COST_WEIGHT for key, name in arms]
        for r in memory.requests
    ]
    return np.stack(contexts), np.array(rewards)


def _context(pair: tuple[Floats | None, Floats | None], hidden: int) -> Any:
    zero = np.zeros(hidden)
    return np.concatenate([*(zero if v is None else v for v in pair), [1.0]]).astype(np.float64)


def poisoned(bench: Bench, count: int, every: int) -> dict[str, Any]:
    """One caller says of requests for each task that they were for another."""
    rng = np.random.default_rng(bench.seed)
    names = list(bench.registry.tasks)
    asked = [r for r in bench.memory.requests if r.target in names and r.description is not None]
    live, rows, promoted = bench.shipped, [], 0
    past: list[Run] = []
    for index in range(count):
        request = asked[rng.integers(len(asked))]
        right = request.target
        wrong = names[(names.index(right) + 1) % len(names)]
        rows.append({
            "caller": "one", "judged_at": float(index), "vectors": vectors_of(request, bench.embed),
            "task": right, "steps": (), "propensity": 1.0, "correct_task": wrong, "correct_label": None,
        })  # fmt: skip
        if (index + 1) % every == 0:
            newest = rows[::-1][:PER_CALLER]
            found = learn(
                replay_of(newest, bench.hidden), bench.serving(live), bench.memory, LearnRun(), past
            )
            if found is not None:
                past.append((float(index), found.metrics[HELD_OUT_BY]))
            if found is not None and found.verdict.passed:
                live, promoted = found.weights, promoted + 1
    return {"rows": count, "promoted": promoted, "accuracy": bench.accuracy(live)}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(args.data, args.models, args.seed)
    requests = stream(args.rows, bench.registry, args.data, bench.embed, args.seed)
    before = bench.accuracy(bench.shipped)
    learned, learning = ours(bench, requests, args.every)
    rewards = {
        "learner": learned,
        "frozen": ours(bench, requests, None)[0],
        "LinUCB, cold": linucb(bench, requests, warm=False, told=False),
        "LinUCB, warm": linucb(bench, requests, warm=True, told=False),
        "LinUCB, warm and told": linucb(bench, requests, warm=True, told=True),
    }
    best = np.array([best_reward(asked, bench.registry) for asked in requests])
    curves = {name: np.cumsum(best - np.array(own)).round(2).tolist() for name, own in rewards.items()}
    return {
        "rows": args.rows, "every": args.every, "seed": args.seed, "wordings": len(WORDINGS),
        "old_tasks": {"before": before, "after": learning["accuracy"]},
        "runs": learning["runs"], "regret": {name: own[-1] for name, own in curves.items()},
        "poison": {"before": before, **poisoned(bench, args.rows, args.every)}, "curves": curves,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    rows = ["| who | cumulative regret |", "|---|---|"]
    rows += [f"| {name} | {regret:.1f} |" for name, regret in result["regret"].items()]
    old, poison = result["old_tasks"], result["poison"]
    promoted = sum(run["promoted"] for run in result["runs"])
    rows += [
        "",
        f"{result['rows']} feedback rows of {CALLERS} callers; the learner ran every {result['every']} rows "
        f"and was promoted {promoted} of {len(result['runs'])} times. Accuracy on the old tasks (validation "
        f"families): {old['before']:.4f} before, {old['after']:.4f} after.",
        "",
        f"{poison['rows']} poisoned rows of one caller: promoted {poison['promoted']} times, accuracy "
        f"{poison['before']:.4f} before, {poison['accuracy']:.4f} after.",
        "",
        "![Cumulative regret](feedback.png)",
    ]
    return "\n".join(rows)


def plot(curves: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, curve in curves.items():
        axes.plot(curve, label=name)
    axes.set(xlabel="requests", ylabel="cumulative regret")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the datasets")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the gating weights")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    args = parser.parse_args()
    result = measure(args)
    if args.dry:
        print(table(result))
        return
    reporting.RESULTS.mkdir(exist_ok=True)
    plot(result["curves"], reporting.RESULTS / "feedback.png")
    reporting.write("feedback", result, table(result))


if __name__ == "__main__":
    main()
