"""`mole evaluate gating` and `expert`: judges weights on what none of them was fitted on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mole.cli.console import out
from mole.cli.train_command import DEFAULT_REGISTRY, Data, RegistryFile, progress_bar

app = typer.Typer(help="Judge the weights.", no_args_is_help=True)


@app.command()
def gating(
    data: Data = None,
    registry: RegistryFile = DEFAULT_REGISTRY,
    models: Annotated[
        Path | None, typer.Option(help="Folder of the weights. [default: those in use]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write gating.json, gating.md and the plots into this folder.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    seed: int = 1,
) -> None:
    """Judge gating.

    Decides held-out requests and sums up accuracy, confusion, calibration, abstaining and latency.
    """
    from moe_router.training.report import markdown, write

    result = asyncio.run(_evaluate(registry, models, data, seed))
    if output is not None:
        write(result, output)
    out().print(
        json.dumps(result, ensure_ascii=False) if json_output else markdown(result),
        markup=False,
        soft_wrap=True,
    )


@app.command()
def expert(
    task: Annotated[str, typer.Argument(metavar="DOMAIN/TASK", help="The task whose expert is judged.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of a dataset, whose held-out half of validation is used; or a file of rows."
        ),
    ],
    base: Annotated[str, typer.Option(help="The base model's key in the registry.")] = "gemma-3-270m",
    adapter: Annotated[
        Path | None, typer.Option(help="The adapter's folder. [default: the registry's]")
    ] = None,
    registry: RegistryFile = DEFAULT_REGISTRY,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many texts.")] = None,
    baselines: Annotated[
        bool, typer.Option(help="Judge the base model without an adapter, and a linear head, too.")
    ] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Judge an expert.

    Accuracy, macro-F1 and calibration, by language, beside what it must beat.
    """
    from moe_router.registry import load_registry
    from moe_router.training.experts.evaluate import Evaluation, evaluate_expert
    from moe_router.training.experts.report import table
    from mole.cli.train_command import encoder_in_use
    from mole.settings import CommandSettings

    settings = CommandSettings()
    given = Evaluation(
        task, data, base, adapter, settings.adapter_root, settings.cache, limit, baselines,
        settings.gating_models / "probes",
    )  # fmt: skip
    with progress_bar() as bar:
        job = bar.add_task("loading the base model", total=1.0)
        found = evaluate_expert(
            given, load_registry(registry), encoder_in_use() if baselines else None,
            lambda m, f: bar.update(job, description=m, completed=f),
        )  # fmt: skip
    shown = json.dumps(found, ensure_ascii=False) if json_output else table(found)
    out().print(shown, markup=False, soft_wrap=True)


async def _evaluate(registry: Path, models: Path | None, data: Path | None, seed: int) -> dict[str, Any]:
    from moe_router.assets.encoder import EMBEDDED
    from moe_router.gating.pipeline import GatingConfig, GatingPipeline
    from moe_router.registry import load_registry
    from moe_router.training.evaluate import evaluate_gating
    from mole.settings import CommandSettings

    settings = CommandSettings()
    config = GatingConfig(
        settings.cache, model_dir=models or settings.gating_models, lid_path=settings.lid_path,
        encoder=settings.encoder or EMBEDDED, target_risk=settings.target_risk,
    )  # fmt: skip
    pipeline = GatingPipeline.load(load_registry(registry), config)
    try:
        with progress_bar() as bar:
            job = bar.add_task("starting", total=1.0)
            return await evaluate_gating(
                pipeline, data, lambda m, f: bar.update(job, description=m, completed=f), seed=seed
            )
    finally:
        await pipeline.aclose()
