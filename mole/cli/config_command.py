"""`mole config check`: judges the registry and the mapping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mole.cli.console import ExitCode, epilog, out, print_json

if TYPE_CHECKING:
    from collections.abc import Sized

    from moe_router.config_check import Report

app = typer.Typer(help="Check the files you edit.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `check` a subcommand while it is the only one."""


@app.command(epilog=epilog("mole config check --strict"))
def check(
    registry: Annotated[
        Path | None, typer.Option(help="The registry. [default: $EXPERT_REGISTRY_PATH or config/]")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="The mapping. [default: $EXPERT_MAPPING_PATH or config/]")
    ] = None,
    adapters: Annotated[
        Path | None, typer.Option(help="Root of relative adapter paths. [default: $ADAPTER_PATH]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Missing things are errors, too.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check both files, and against each other. Ends with 1 where there is an error, else with 0."""
    from moe_router.config_check import check_files
    from mole.settings import CommandSettings

    settings = CommandSettings()
    report = check_files(
        registry or settings.registry_file,
        mapping or settings.mapping_file,
        adapters or settings.adapter_root,
        settings.gating_models,
        strict=strict,
    )
    if json_output:
        print_json(_as_json(report))
    else:
        _show(report)
    raise typer.Exit(ExitCode.OK if report.ok else ExitCode.FAILED)


def _as_json(report: Report) -> str:
    import json
    from dataclasses import asdict

    return json.dumps({"ok": report.ok, "findings": [asdict(f) for f in report.findings]}, indent=2)


def _show(report: Report) -> None:
    from rich.text import Text

    styles = {"error": "bold red", "warning": "yellow"}
    for finding in report.findings:
        # One finding a line, as compilers do, so that editors and grep can read it.
        out().print(Text(finding.severity, styles[finding.severity]) + Text(f" {finding}"), soft_wrap=True)
    parts = [f"{_count(report.errors, 'error')}, {_count(report.warnings, 'warning')}"]
    if report.registry is not None:
        tasks, models = report.registry.tasks, report.registry.base_models
        parts.append(f"{_count(tasks, 'task')}, {_count(models, 'base model')}")
    if report.mapping is not None:
        parts.append(_count(report.mapping.workers, "worker"))
    out().print("; ".join(parts), soft_wrap=True)


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
