"""Writes an evaluation of gating down: a table for people, JSON for machines, plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    accuracy, abstention = result["accuracy"], result["abstention"]
    rows = [
        "| what | value |",
        "|---|---|",
        f"| task accuracy with a description | {accuracy['described']:.4f} |",
        f"| domain accuracy with a description | {accuracy['domain']:.4f} |",
        f"| out-of-scope AUROC | {result['out_of_scope_auroc']:.4f} |",
        f"| expected calibration error | {result['ece']:.4f} |",
        f"| answered, and wrong of these | {abstention['coverage']:.4f}, {abstention['risk']:.4f} |",
        f"| latency, median and p95 | {result['latency_ms']['p50']} ms, {result['latency_ms']['p95']} ms |",
        f"| encoder passes a request | {result['encoder_passes']} |",
    ]
    rows += [
        f"| language of {name.replace('_', ' ')} | {own['accuracy']:.4f} |"
        for name, own in result.get("language", {}).items()
    ]
    for title in ("by_origin", "by_kind", "by_style", "by_task", "by_language"):
        rows += ["", f"| {title.removeprefix('by_')} | task accuracy | n |", "|---|---|---|"]
        rows += [f"| {name} | {own['accuracy']:.4f} | {own['n']} |" for name, own in accuracy[title].items()]
    return "\n".join(rows)


def write(result: dict[str, Any], folder: Path) -> None:
    """Writes gating.json, gating.md, gating-reliability.png and gating-coverage-risk.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gating.json").write_text(
        json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    text = f"# Gating on the validation families\n\n{markdown(result)}\n"
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
