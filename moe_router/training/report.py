"""Writes an evaluation of gating down: a table for people, JSON for machines, plots."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    both = (result, result["test"])
    rows = ["| what | validation | test |", "|---|---|---|"]
    for name, read in _FIGURES:
        rows.append(f"| {name} | {read(both[0])} | {read(both[1])} |")
    rows += [
        f"| language of {name.replace('_', ' ')} | {own['accuracy']:.4f} | |"
        for name, own in result.get("language", {}).items()
    ]
    for title in ("by_origin", "by_kind", "by_style", "by_task", "by_language"):
        rows += ["", f"| {title.removeprefix('by_')} | validation | n | test | n |", "|---|---|---|---|---|"]
        groups = [one["accuracy"][title] for one in both]
        rows += [f"| {name} | {_cells(groups[0], name)} | {_cells(groups[1], name)} |" for name in groups[0]]
    return "\n".join(rows)


_FIGURES: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("task accuracy with a description", lambda of: f"{of['accuracy']['described']:.4f}"),
    ("domain accuracy with a description", lambda of: f"{of['accuracy']['domain']:.4f}"),
    ("out-of-scope AUROC", lambda of: f"{of['out_of_scope_auroc']:.4f}"),
    ("expected calibration error", lambda of: f"{of['ece']:.4f}"),
    (
        "answered, and wrong of these",
        lambda of: f"{of['abstention']['coverage']:.4f}, {of['abstention']['risk']:.4f}",
    ),
    (
        "latency, median and p95",
        lambda of: f"{of['latency_ms']['p50']} ms, {of['latency_ms']['p95']} ms",
    ),
    ("encoder passes a request", lambda of: f"{of['encoder_passes']}"),
)


def _cells(group: dict[str, dict[str, float]], name: str) -> str:
    own = group.get(name)
    return f"{own['accuracy']:.4f} | {own['n']}" if own is not None else "|"


def write(result: dict[str, Any], folder: Path) -> None:
    """Writes gating.json, gating.md, gating-reliability.png and gating-coverage-risk.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gating.json").write_text(
        json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    text = f"# Gating on the validation families and the test\n\n{markdown(result)}\n"
    (folder / "gating.md").write_text(text, encoding="utf-8")
    _plots(result, folder)


def _plots(result: dict[str, Any], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(4, 4))
    bins = result["reliability"]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], marker="o")
    axes.set(xlabel="confidence", ylabel="accuracy", title=f"Reliability, ECE {result['ece']:.3f}")
    figure.savefig(folder / "gating-reliability.png", dpi=120, bbox_inches="tight")
    figure, axes = plt.subplots(figsize=(4, 4))
    curve = result["coverage_risk"]
    axes.plot([c["coverage"] for c in curve], [c["risk"] for c in curve], marker=".")
    axes.set(xlabel="coverage", ylabel="risk", title="Coverage and risk of abstaining")
    figure.savefig(folder / "gating-coverage-risk.png", dpi=120, bbox_inches="tight")
    plt.close("all")
