"""`mole train encoder`, `expert`, `gating`, `pool`, `probe`, `router`: make weights from data or feedback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mole.cli.console import err, out

if TYPE_CHECKING:
    from rich.progress import Progress

    from moe_router.gating.encoder import Encoder
    from moe_router.registry import Registry

app = typer.Typer(help="Make the weights.", no_args_is_help=True)

Data = Annotated[
    Path | None, typer.Option(help="Folder of the datasets; without it the project's own texts alone.")
]
RegistryFile = Annotated[Path, typer.Option(help="The registry whose tasks are trained or judged.")]
Without = Annotated[
    list[str] | None,
    typer.Option(metavar="DOMAIN/TASK", help="Leave a task out, to see how a new one fares."),
]
DEFAULT_REGISTRY = Path("config/demo/experts_registry.json")


@app.command()
def gating(
    data: Data = None,
    output: Annotated[Path | None, typer.Option(help="Where the weights go. [default: those in use]")] = None,
    registry: RegistryFile = DEFAULT_REGISTRY,
    without: Without = None,
    seed: int = 0,
) -> None:
    """Fit the heads and the Q-network.

    It takes minutes on a laptop.
    """
    from moe_router.training.build import GatingRun, build
    from mole.settings import CommandSettings

    folder = output or CommandSettings().gating_models
    run = GatingRun(data, folder, seed=seed, without=frozenset(without or ()))
    with progress_bar() as bar:
        job = bar.add_task("starting", total=1.0)
        build(
            run,
            _registry(registry),
            encoder_in_use(),
            lambda m, f: bar.update(job, description=m, completed=f),
        )
    out().print(f"weights: {folder}; judge them with `mole evaluate gating`", soft_wrap=True)


@app.command()
def encoder(
    data: Annotated[Path, typer.Option(help="Folder of the datasets.")],
    output: Annotated[Path, typer.Option(help="Folder of encoder_adapter.safetensors and .json.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps; 2,400 take most of an hour.")] = 2400,
    start: Annotated[Path | None, typer.Option(help="An encoder_adapter.safetensors to go on from.")] = None,
    without: Without = None,
    seed: int = 0,
) -> None:
    """Adapt the text encoder (LoRA).

    To the requests and the datasets' texts.

    Copy the files into gating's models to use it; every other weight must then be made anew.
    """
    from moe_router.training.encoder import EncoderRun, train_encoder

    with progress_bar() as bar:
        job = bar.add_task("starting", total=1.0)
        train_encoder(
            EncoderRun(data, output, steps=steps, start=start, without=frozenset(without or ()), seed=seed),
            lambda m, f: bar.update(job, description=m, completed=f),
        )
    out().print(f"adapter: {output}", soft_wrap=True)


@app.command()
def probe(
    task: Annotated[str, typer.Argument(metavar="DOMAIN/TASK", help="The task that it answers.")],
    data: Annotated[
        Path, typer.Option(help="Folder with train.jsonl.gz and validation.jsonl.gz: rows of text and label.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Where it goes. [default: probes in gating's models]")
    ] = None,
    seed: int = 0,
) -> None:
    """Fit a probe for a task.

    It is a linear head on gating's encoding that answers a task without a worker.

    Switch it on with "probe": {"path": …} in the registry's task.
    """
    from moe_router.training.probes import ProbeRun, fit_probe
    from mole.settings import CommandSettings

    run = ProbeRun(data, task, output or CommandSettings().gating_models / "probes", seed=seed)
    with progress_bar() as bar:
        job = bar.add_task("starting", total=1.0)
        figures = fit_probe(run, encoder_in_use(), lambda m, f: bar.update(job, description=m, completed=f))
    shown = ", ".join(f"{name} {value}" for name, value in figures.items())
    out().print(f"probe: {run.output / task.replace('/', '__')}; validation: {shown}", soft_wrap=True)


@app.command()
def pool(
    task: Annotated[str, typer.Argument(metavar="DOMAIN/TASK", help="The task that both answer.")],
    data: Annotated[Path, typer.Option(help="Folder with validation.jsonl.gz: rows of text and label.")],
    base: Annotated[str, typer.Option(help="The expert's base model, by its key in the registry.")] = (
        "gemma-3-270m"
    ),
    expert: Annotated[
        str | None, typer.Option(help="Its name, where several are on that model. [default: the first]")
    ] = None,
    probes: Annotated[
        Path | None, typer.Option(help="Folder of the probe. [default: probes in gating's models]")
    ] = None,
    registry: RegistryFile = DEFAULT_REGISTRY,
) -> None:
    """Hear a probe and an expert together.

    Both answer the texts that may choose; the weights of their two opinions are fitted on them and written
    into the probe's description. Where the probe has read a text and the router asks the expert, the answer
    is that of both. An expert without such weights is taken at its word. Fit them again when either is
    trained anew.
    """
    from moe_router.experts.model_host import PoolConfig
    from moe_router.training.experts.report import table
    from moe_router.training.opinion_pools import PoolRun, fit_opinion_pool
    from mole.settings import CommandSettings

    settings = CommandSettings()
    experts = PoolConfig(adapter_root=settings.adapter_root, cache_dir=settings.cache, worker_id="training")
    run = PoolRun(task, data, probes or settings.gating_models / "probes", base, experts, expert)
    with progress_bar() as bar:
        job = bar.add_task("starting", total=1.0)
        figures = fit_opinion_pool(
            run,
            _registry(registry),
            encoder_in_use(),
            lambda m, f: bar.update(job, description=m, completed=f),
        )
    out().print(table(figures), markup=False, soft_wrap=True)


@app.command()
def expert(
    task: Annotated[str, typer.Argument(metavar="DOMAIN/TASK", help="The task that it serves.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder with train.jsonl.gz and validation.jsonl.gz: text, language, and label or entities."
        ),
    ],
    base: Annotated[str, typer.Option(help="The base model's key in the registry.")] = "gemma-3-270m",
    output: Annotated[
        Path | None, typer.Option("--out", help="The run's folder. [default: runs/DOMAIN-TASK]")
    ] = None,
    registry: RegistryFile = DEFAULT_REGISTRY,
    template: Annotated[
        str | None, typer.Option(help="The prompt, with {{input}}. [default: the task's template]")
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.01)] = 3.0,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 6e-4,
    rank: Annotated[int, typer.Option(min=1, max=64)] = 8,
    first_layer: Annotated[int, typer.Option(min=0, help="Layers below get no adapter.")] = 0,
    batch_tokens: Annotated[int, typer.Option(min=16, help="Rows times longest row of a step.")] = 640,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many training texts.")] = None,
    checks: Annotated[int, typer.Option(min=1, help="Checks on validation texts, in all.")] = 8,
    patience: Annotated[int, typer.Option(min=1, help="Checks without gain before it stops.")] = 4,
    licence: Annotated[str, typer.Option(help="The data's, for the model card.")] = "not stated",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    mean_of: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Take the mean of adapters, one option each, instead of training: of runs with one seed, "
            "on other texts.",
        ),
    ] = None,
    seed: int = 0,
) -> None:
    """Train a LoRA adapter for a task.

    It learns the very choices that serving scores. Then copy the run's folder `adapter` to the adapters and
    name it in the registry's "adapter_path".
    """
    from moe_router.training.experts.lora import LoraShape
    from moe_router.training.experts.train import ExpertRun, train_expert
    from mole.settings import CommandSettings

    folder = output or Path("runs") / task.replace("/", "-")
    known = _registry(registry)
    run = ExpertRun(
        task, data, base, folder, CommandSettings().cache, template or _template(known, task, base),
        LoraShape(rank, 2 * rank, first_layer=first_layer), learning_rate, epochs, batch_tokens, limit,
        checks=checks, patience=patience, licence=licence, resume=resume, seed=seed,
        mean_of=tuple(mean_of or ()),
    )  # fmt: skip
    with progress_bar() as bar:
        job = bar.add_task("loading the base model", total=1.0)
        figures = train_expert(run, known, lambda m, f: bar.update(job, description=m, completed=f))
    shown = ", ".join(f"{name} {value}" for name, value in figures.items() if name != "languages")
    out().print(f"adapter: {folder / 'adapter'}; validation: {shown}", soft_wrap=True)


def _template(registry: Registry, task: str, base: str) -> str:
    from moe_router.experts.prompting import default_template, load_template
    from moe_router.experts.roster import resolve
    from mole.settings import CommandSettings

    spec = registry.task(task)
    if spec.template_path is None:
        return default_template(spec.description, spec.label_set)
    return load_template(resolve(CommandSettings().adapter_root, spec.template_path), base)


@app.command()
def router(
    from_feedback: Annotated[
        bool, typer.Option("--from-feedback", help="Learn from what callers said; there is no other source.")
    ] = False,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="The coordinator's database. [default: its settings]")
    ] = None,
    data: Data = None,
    per_caller: Annotated[int, typer.Option(min=1, help="Newest rows of one caller that count.")] = 500,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, but store nothing.")] = False,
    promote: Annotated[bool, typer.Option(help="Let a candidate that passes go live.")] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Learn from feedback.

    Trains a candidate for the router's weights; it goes live only if it is better.
    """
    import json

    from mole.cli.console import CommandError, ExitCode, print_json
    from mole.cli.learning_process import learning

    if not from_feedback:
        raise CommandError("say --from-feedback: `mole train gating` trains from data", ExitCode.USAGE)
    arguments = ["train", "--per-caller", str(per_caller)]
    arguments += ["--data", str(data)] if data is not None else []
    arguments += ["--dry-run"] if dry_run else []
    arguments += [] if promote else ["--no-promote"]
    found = learning(arguments, database)
    if json_output:
        print_json(json.dumps(found, indent=2))
        return
    if found["outcome"] == "nothing":
        out().print("the feedback proves nothing that can be learned: no version was made")
        return
    name = "the candidate" if found["id"] is None else f"version {found['id']}"
    why = f": {'; '.join(found['reasons'])}" if found["reasons"] else ""
    out().print(f"{name}: {found['outcome']}{why}", markup=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A bar on standard error with the step, the share done and the time left."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err(), transient=True)


def _registry(path: Path) -> Registry:
    from moe_router.registry import load_registry

    return load_registry(path)


def encoder_in_use() -> Encoder:
    """Gating's text encoder."""
    from moe_router.assets.encoder import EMBEDDED, ensure_encoder
    from moe_router.gating.encoder import Encoder
    from mole.settings import CommandSettings

    settings = CommandSettings()
    return Encoder(ensure_encoder(settings.cache, name=settings.encoder or EMBEDDED), max_tokens=256)
