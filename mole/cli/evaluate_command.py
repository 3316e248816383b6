"""`mole evaluate gating`: judges gating on requests that no weight was fitted on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mole.cli.console import out
from mole.cli.train_command import DEFAULT_REGISTRY, Data, RegistryFile, progress_bar

app = typer.Typer(help="Judge the weights.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `gating` a subcommand while it is the only one."""


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

    Decides the validation families' requests and sums up accuracy, calibration and abstaining.
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


async def _evaluate(registry: Path, models: Path | None, data: Path | None, seed: int) -> dict[str, Any]:
    from moe_router.gating.pipeline import MODELS, GatingConfig, GatingPipeline
    from moe_router.registry import load_registry
    from moe_router.training.evaluate import evaluate_gating
    from mole.settings import CommandSettings

    config = GatingConfig(CommandSettings().cache, model_dir=models or MODELS)
    pipeline = GatingPipeline.load(load_registry(registry), config)
    try:
        with progress_bar() as bar:
            job = bar.add_task("starting", total=1.0)
            return await evaluate_gating(
                pipeline, data, lambda m, f: bar.update(job, description=m, completed=f), seed=seed
            )
    finally:
        await pipeline.aclose()
