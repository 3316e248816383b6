"""Writes an evaluation of gating down: a table for people, JSON for machines, plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moe_router.gating.heads import NONE


def markdown(result: dict[str, Any]) -> str:
    """The figures as Markdown tables, aligned so that a terminal shows them as well."""
    parts = {"validation": result, "test": result["test"]}
    tables = [_summary(result), _risks(parts)]
    tables += [_groups(f"by_{of}", parts) for of in ("origin", "kind", "style", "task", "language")]
    tables += [_confusion(name, part["confusion"]) for name, part in parts.items()]
    return "\n\n".join(tables)


def _summary(result: dict[str, Any]) -> str:
    rows = [[name, read(result), read(result["test"])] for name, read in _FIGURES]
    rows += [
        [f"language of {name.replace('_', ' ')}", f"{own['accuracy']:.4f}", ""]
        for name, own in result.get("language", {}).items()
    ]
    return _table([["what", "validation", "test"], *rows])


def _risks(parts: Mapping[str, dict[str, Any]]) -> str:
    """How many of the answers would be wrong, were only so many of the requests, the surest, answered."""
    curves = [part["risk_at_coverage"] for part in parts.values()]
    rows = [
        [f"{100 * points[0]['coverage']:.0f} %", *(f"{point['risk']:.4f}" for point in points)]
        for points in zip(*curves, strict=True)
    ]
    return _table([["wrong, of the surest", *parts], *rows])


def _groups(title: str, parts: Mapping[str, dict[str, Any]]) -> str:
    groups = [part["accuracy"][title] for part in parts.values()]
    rows = [[name, *_cells(groups[0], name), *_cells(groups[1], name)] for name in groups[0]]
    return _table([[title.removeprefix("by_"), "validation", "n", "test", "n"], *rows])


def _confusion(part: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Requests by what they ask for, a row each, and what they were answered with, a column each."""
    tasks = sorted({name for asked in counts for name in (asked, *counts[asked])} - {NONE})
    heads = {name: str(number) for number, name in enumerate(tasks, 1)} | {NONE: NONE}
    rows = [
        [
            f"{heads[asked]} {asked}" if asked != NONE else NONE,
            *(str(counts.get(asked, {}).get(answered, "")) for answered in heads),
        ]
        for asked in heads
    ]
    return _table([[f"{part}: asked, answered", *heads.values()], *rows], gap="")


_FIGURES: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("task accuracy with a description", lambda of: f"{of['accuracy']['described']:.4f}"),
    ("domain accuracy with a description", lambda of: f"{of['accuracy']['domain']:.4f}"),
    ("out-of-scope AUROC", lambda of: f"{of['out_of_scope_auroc']:.4f}"),
    ("expected calibration error, task", lambda of: f"{of['ece']:.4f}"),
    ("expected calibration error, domain", lambda of: f"{of['domain_ece']:.4f}"),
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


def _cells(group: dict[str, dict[str, float]], name: str) -> tuple[str, str]:
    own = group.get(name)
    return (f"{own['accuracy']:.4f}", str(own["n"])) if own is not None else ("", "")


def _table(rows: Sequence[Sequence[str]], gap: str = " ") -> str:
    """A Markdown table of a head and rows, with names to the left and figures to the right.

    Args:
        rows: of cells, the head first.
        gap: around each cell; none where there are many columns, to fit in 80 characters.
    """
    widths = [max(2, *map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    edge = f"{gap}|{gap}"
    return "\n".join(f"|{gap}{edge.join(cells)}{gap}|" for cells in (head, rule, *body))


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
