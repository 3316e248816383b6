"""`mole router`: the versions of the router that were learned from feedback."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mole.cli.console import epilog, out, print_json

app = typer.Typer(help="Versions learned from feedback.", no_args_is_help=True)

Database = Annotated[
    str | None, typer.Option(metavar="URL", help="The coordinator's database. [default: its settings]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def versions(database: Database = None, json_output: Json = False) -> None:
    """List the versions, newest first."""
    from mole.cli.learning_process import learning

    found = learning(["versions"], database)
    if json_output:
        print_json(json.dumps(found))
        return
    if not found:
        out().print("no version yet: the shipped weights are in force")
        return
    for version in found:
        out().print(_line(version), markup=False, soft_wrap=True)


@app.command(epilog=epilog("mole router promote 3"))
def promote(
    version: Annotated[int, typer.Argument(metavar="ID", help="Its number.")],
    database: Database = None,
    json_output: Json = False,
) -> None:
    """Let a version go live.

    Coordinators take it within seconds.
    """
    from mole.cli.learning_process import learning

    found = learning(["promote", str(version)], database)
    if json_output:
        print_json(json.dumps(found))
        return
    out().print(f"version {found['id']} is live", markup=False)


@app.command()
def rollback(database: Database = None, json_output: Json = False) -> None:
    """Take the live version back.

    The one before it is live again.
    """
    from mole.cli.learning_process import learning

    found = learning(["rollback"], database)
    if json_output:
        print_json(json.dumps(found))
        return
    back = "the shipped weights are" if found["id"] is None else f"version {found['id']} is"
    out().print(f"{back} live", markup=False)


def _line(version: dict[str, Any]) -> str:
    made = datetime.fromtimestamp(version["created_at"], UTC).isoformat(timespec="seconds")
    reasons = version["metrics"].get("reasons") or []
    why = f"  {'; '.join(reasons)}" if reasons else ""
    parent = "shipped" if version["parent_id"] is None else version["parent_id"]
    other = "  learned from other shipped weights than those in use" if version["outdated"] else ""
    return f"{version['id']}  {version['state']}  {made}  from {parent}{other}{why}"
