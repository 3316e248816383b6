"""Writes a run's figures down: `report.json`, the curves as PNG, and the adapter's model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(folder: Path, run: dict[str, Any], figures: dict[str, Any], base: str) -> None:
    """Writes report.json and curves.png into the run's folder, and README.md into the adapter's."""
    (folder / "report.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    plot([json.loads(line) for line in lines], folder / "curves.png")
    (folder / "adapter" / "README.md").write_text(card(run, figures, base), encoding="utf-8")


def plot(metrics: list[dict[str, Any]], path: Path) -> None:
    """Loss and validation figure by step."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    steps = [line["step"] for line in metrics]
    axes[0].plot(steps, [line["loss"] for line in metrics], marker=".")
    axes[0].set(xlabel="step", title="training loss (moving mean)")
    name = "span_f1" if metrics and "span_f1" in metrics[0] else "macro_f1"
    axes[1].plot(steps, [line[name] for line in metrics], marker=".")
    axes[1].set(xlabel="step", title=f"{name} on the choosing half")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def card(run: dict[str, Any], figures: dict[str, Any], base: str) -> str:
    """The model card: what it is, what it was trained on, and what it reaches."""
    shape = run["shape"]
    if run["mean_of"]:
        made = f"- The mean of {len(run['mean_of'])} runs' adapters, cut to its rank."
    else:
        made = (
            f"- Learning rate {run['learning_rate']:g}, at most {run['epochs']:g} epochs, seed {run['seed']}."
        )
    rows = [f"| {name} | {value} |" for name, value in figures.items() if name != "languages"]
    languages = figures.get("languages", {})
    if languages:
        first = next(name for name in ("macro_f1", "span_f1") if name in figures)
        rows += ["", f"| language | {first} | texts |", "|---|---|---|"]
        rows += [f"| {code} | {own[first]} | {own['texts']} |" for code, own in languages.items()]
    return "\n".join([
        "---",
        "library_name: peft",
        "tags: [lora, text-classification]",
        "---",
        f"# {run['task']} on {base}",
        "",
        f"A LoRA adapter (rank {shape['rank']}, alpha {shape['alpha']}) that `mole train expert` made.",
        "",
        f"- Data: `{Path(run['data']).name}`, its train file; licence: {run['licence']}.",
        f"- Base model: {base}, under its own terms; the adapter is of use only with it.",
        made,
        "- The prompt, the words that stand for labels, and the temperatures are in `expert.json`.",
        "",
        "On the half of the validation file that chose neither the checkpoint nor the temperatures:",
        "",
        "| what | value |",
        "|---|---|",
        *rows,
        "",
        "Meant for the task and the languages of its data. Elsewhere its confidence says little.",
        "",
    ])  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """The figures of several ways side by side as Markdown, and by language."""
    ways = list(found)
    names = [name for name in found[ways[0]] if name != "languages"]
    lines = [f"| | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(str(found[way][name]) for way in ways)} |" for name in names]
    languages = found[ways[0]].get("languages", {})
    figure = next(name for name in ("macro_f1", "span_f1") if name in names)
    if languages:
        lines += ["", f"| {figure} | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    lines += [
        f"| {code} | {' | '.join(str(found[way]['languages'][code][figure]) for way in ways)} |"
        for code in languages
    ]
    return "\n".join(lines)
