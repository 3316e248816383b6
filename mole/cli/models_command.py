"""`mole models fetch`: makes the encoder and a base model in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mole.cli.console import err, out

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_router.assets.cache import Progress

app = typer.Typer(help="Models that this machine keeps.", no_args_is_help=True)

EMBEDDED_BASE_MODEL = "embedded:gemma-3-270m"


@app.callback()
def _group() -> None:
    """Keeps `fetch` a subcommand while it is the only one."""


@app.command()
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
) -> None:
    """Convert the encoder to ONNX int8 and assemble the base model, once."""
    from mole.settings import CommandSettings

    folder = cache.expanduser() if cache else CommandSettings().cache
    out().print(f"cache: {folder}", soft_wrap=True)
    _step("encoder", lambda progress: _encoder(folder, progress))
    if not encoder_only:
        _step("base model", lambda progress: _base_model(base_model, folder, progress))


def _encoder(cache: Path, progress: Progress) -> Path | str:
    from moe_router.assets.encoder import ensure_encoder

    return ensure_encoder(cache, progress)


def _base_model(name: str, cache: Path, progress: Progress) -> Path | str:
    from moe_router.assets.base_model import ensure_base_model

    return ensure_base_model(name, cache, progress)


def _step(name: str, make: Callable[[Progress], Path | str]) -> None:
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

        made = make(report)
    if isinstance(made, Path):
        out().print(f"{name}: {made} ({megabytes(made)} MB)", soft_wrap=True)
    else:
        out().print(f"{name}: {made} is loaded by its worker, nothing to make here", soft_wrap=True)


def megabytes(path: Path) -> int:
    """Size of a file or of all files of a folder, in MB."""
    files = path.rglob("*") if path.is_dir() else iter([path])
    return round(sum(f.stat().st_size for f in files if f.is_file()) / 1e6)
