"""`mole models fetch`: makes the encoder and a base model in the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mole.cli.console import epilog, err, out, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_router.assets.cache import Progress

app = typer.Typer(help="Models that this machine keeps.", no_args_is_help=True)

EMBEDDED_BASE_MODEL = "embedded:gemma-3-270m"


@app.callback()
def _group() -> None:
    """Keeps `fetch` a subcommand while it is the only one."""


@app.command(epilog=epilog("mole models fetch", "mole models fetch --encoder-only"))
def fetch(
    base_model: Annotated[
        str, typer.Option(metavar="NAME", help="A base model; hub names are left to the worker.")
    ] = EMBEDDED_BASE_MODEL,
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="No base model: enough for a coordinator.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Where the models are kept. [default: $MOLE_CACHE_DIR]")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print where they are as JSON.")] = False,
) -> None:
    """Make the models, once.

    Converts the encoder to ONNX int8 and assembles the base model.
    """
    from mole.settings import CommandSettings

    folder = cache.expanduser() if cache else CommandSettings().cache
    made = {"encoder": _step("encoder", lambda progress: _encoder(folder, progress))}
    if not encoder_only:
        made["base model"] = _step("base model", lambda progress: _base_model(base_model, folder, progress))
    if json_output:
        paths = {name: str(path) if isinstance(path, Path) else None for name, path in made.items()}
        print_json(json.dumps({"cache": str(folder), **paths}))
        return
    out().print(f"cache: {folder}", soft_wrap=True)
    for name, path in made.items():
        size = f"({megabytes(path)} MB)" if isinstance(path, Path) else "is loaded by its worker"
        out().print(f"{name}: {path} {size}", soft_wrap=True)


def _encoder(cache: Path, progress: Progress) -> Path | str:
    from moe_router.assets.encoder import ensure_encoder

    return ensure_encoder(cache, progress)


def _base_model(name: str, cache: Path, progress: Progress) -> Path | str:
    from moe_router.assets.base_model import ensure_base_model

    return ensure_base_model(name, cache, progress)


def _step(name: str, make: Callable[[Progress], Path | str]) -> Path | str:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[name]}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err(), transient=True) as bar:
        job = bar.add_task("starting", total=1.0, name=name)

        def report(message: str, fraction: float) -> None:
            bar.update(job, description=message, completed=fraction)

        return make(report)


def megabytes(path: Path) -> int:
    """Size of a file or of all files of a folder, in MB."""
    files = path.rglob("*") if path.is_dir() else iter([path])
    return round(sum(f.stat().st_size for f in files if f.is_file()) / 1e6)
