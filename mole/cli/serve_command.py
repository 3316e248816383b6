"""`mole serve`: runs one service in this process; the options mirror its settings."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from mole.cli.console import CommandError, epilog

app = typer.Typer(help="Run one service.", no_args_is_help=True)

Host = Annotated[str, typer.Option(help="The address to listen at.")]
Registry = Annotated[Path | None, typer.Option(help="The registry. [default: $EXPERT_REGISTRY_PATH]")]
Mapping = Annotated[Path | None, typer.Option(help="The mapping. [default: $EXPERT_MAPPING_PATH]")]
Adapters = Annotated[
    Path | None, typer.Option(help="Root of relative adapter paths. [default: $ADAPTER_PATH]")
]
Cache = Annotated[Path | None, typer.Option(help="Where the models are kept. [default: $MOLE_CACHE_DIR]")]
Demo = Annotated[bool, typer.Option("--demo", help="Use the files of config/demo: the embedded models.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]

DEMO_MODEL_KEY = "gemma-3-270m"


@app.command(epilog=epilog("mole serve coordinator --demo", "mole serve coordinator --mapping fleet.json"))
def coordinator(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    registry: Registry = None,
    mapping: Mapping = None,
    cache: Cache = None,
    demo: Demo = False,
    log_level: LogLevel = "info",
) -> None:
    """The public service.

    It finds the expert and forwards to its worker.
    """
    _serve("app.main:app", host, port, log_level, {
        "SERVICE_MODE": "coordinator", **_files(registry, mapping, None, cache, demo)
    })  # fmt: skip


@app.command(epilog=epilog("mole serve monolithic --demo --port 8080"))
def monolithic(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    registry: Registry = None,
    adapters: Adapters = None,
    cache: Cache = None,
    demo: Demo = False,
    log_level: LogLevel = "info",
) -> None:
    """The public service, experts and all.

    The experts are in the same process.
    """
    _serve("app.main:app", host, port, log_level, {
        "SERVICE_MODE": "monolithic", **_files(registry, None, adapters, cache, demo)
    })  # fmt: skip


@app.command(epilog=epilog("mole serve worker --demo", "mole serve worker --model-key llama-2-7b-hf"))
def worker(
    host: Host = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="[default: $WORKER_PORT, else 8001]")
    ] = None,
    model_key: Annotated[
        str | None, typer.Option(help="The base model to hold. [default: $WORKER_MODEL_KEY]")
    ] = None,
    worker_id: Annotated[
        str | None, typer.Option(help="Its name in the mapping. [default: $WORKER_ID]")
    ] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Batches in flight.")] = None,
    registry: Registry = None,
    adapters: Adapters = None,
    cache: Cache = None,
    demo: Demo = False,
    log_level: LogLevel = "info",
) -> None:
    """One base model with all its experts."""
    from mole.settings import CommandSettings

    environment = _files(registry, None, adapters, cache, demo)
    listen = port or CommandSettings().worker_port
    if demo:
        environment["WORKER_MODEL_KEY"] = DEMO_MODEL_KEY
    stated = {
        "WORKER_MODEL_KEY": model_key,
        "WORKER_ID": worker_id,
        "WORKER_PORT": listen,
        "MAX_CONCURRENT_GPU_REQUESTS": max_concurrent,
    }
    environment |= {name: str(value) for name, value in stated.items() if value is not None}
    _serve("expert_worker.main:app", host, listen, log_level, environment)


def _files(
    registry: Path | None, mapping: Path | None, adapters: Path | None, cache: Path | None, demo: bool
) -> dict[str, str]:
    """The environment for the files that the options name."""
    if demo:
        from mole.demo.files import demo_files

        files = demo_files()
        registry, mapping = registry or files.registry, mapping or files.mapping
    stated = {
        "EXPERT_REGISTRY_PATH": registry,
        "EXPERT_MAPPING_PATH": mapping,
        "ADAPTER_PATH": adapters,
        "MOLE_CACHE_DIR": cache,
    }
    return {name: str(path) for name, path in stated.items() if path is not None}


def _serve(target: str, host: str, port: int, log_level: str, environment: dict[str, str]) -> None:
    import uvicorn

    if log_level not in uvicorn.config.LOG_LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(uvicorn.config.LOG_LEVELS)}")
    _check_free(host, port)
    # The services read their settings from the environment alone, so options are put there.
    os.environ.update(environment)
    _check_files(target)
    uvicorn.run(target, host=host, port=port, log_level=log_level)


def _check_files(target: str) -> None:
    """Says before the models are loaded that a setting or a file is unusable."""
    from moe_router.config_check import check_files

    if target.startswith("app."):
        from app.settings import Settings

        settings = Settings()
        mapping = settings.mapping_file if settings.service_mode == "coordinator" else None
        report = check_files(
            settings.registry_file, mapping, settings.adapter_path, settings.gating_model_dir
        )
    else:
        from expert_worker.settings import Settings as WorkerSettings

        worker = WorkerSettings()
        report = check_files(worker.registry_file, None, worker.adapter_path, None)
    if not report.ok:
        raise CommandError(f"{report.errors[0]}. `mole config check` tells all.")


def _check_free(host: str, port: int) -> None:
    """Says before the models are loaded that the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"cannot listen at {host}:{port}: {error.strerror}. Choose another with --host or --port."
            ) from error
