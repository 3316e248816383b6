"""`mole keys`: the API keys of a coordinator."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mole.cli.console import err, out, print_json

app = typer.Typer(help="API keys of the coordinator.", no_args_is_help=True)

SCOPES = "classify, jobs, feedback, admin"
Database = Annotated[
    str | None, typer.Option(metavar="URL", help="The coordinator's database. [default: its settings]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is; shown in the list and the audit log.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {SCOPES}; more than once for several. [default: all but admin]"),
    ] = None,
    rate_per_minute: Annotated[
        int | None, typer.Option(min=1, max=10**6, help="Requests a minute, in each coordinator process.")
    ] = None,
    quota_per_day: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Texts a day, UTC, in all coordinators together.")
    ] = None,
    expires_in_days: Annotated[
        float | None, typer.Option(min=0, max=36_500, help="It ends by itself then. [default: never]")
    ] = None,
    database: Database = None,
    json_output: Json = False,
) -> None:
    """Make a key, and show it once.

    From then on the coordinator asks for one.
    """
    from mole.cli.coordinator_process import coordinator_command

    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise typer.BadParameter("NAME: 1 to 200 printable characters")
    for given in scope or ():
        if given not in SCOPES.split(", "):
            raise typer.BadParameter(f"--scope: {given!r} is none of {SCOPES}")
    options = {
        "--rate-per-minute": rate_per_minute,
        "--quota-per-day": quota_per_day,
        "--expires-in-days": expires_in_days,
    }
    arguments = [f"{option}={value}" for option, value in options.items() if value is not None]
    arguments += [f"--scope={given}" for given in scope or ()]
    made = coordinator_command("app.keys", ["create", *arguments, "--", name], database)
    if json_output:
        print_json(json.dumps(made, ensure_ascii=False))
        return
    # The key alone on standard output, so that a script can take it.
    err().print(f"{made['id']}: {', '.join(made['scopes'])}. This key is shown only now:", markup=False)
    print_json(made["key"])


@app.command("list")
def list_keys(
    all_keys: Annotated[bool, typer.Option("--all", help="Revoked and expired ones, too.")] = False,
    database: Database = None,
    json_output: Json = False,
) -> None:
    """List the keys, oldest first."""
    from mole.cli.coordinator_process import coordinator_command

    found = coordinator_command("app.keys", ["list", *(["--all"] if all_keys else [])], database)
    if json_output:
        print_json(json.dumps(found, ensure_ascii=False))
        return
    if not found:
        out().print("no key" if all_keys else "no valid key")
        return
    for key in found:
        for line in _lines(key):
            out().print(line, markup=False, soft_wrap=True)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `mole keys list` shows it.")],
    forget: Annotated[
        bool, typer.Option("--forget", help="Delete it, too; with no key left the service is open again.")
    ] = False,
    database: Database = None,
    json_output: Json = False,
) -> None:
    """End a key, and cancel its unfinished jobs.

    Coordinators refuse it within seconds.
    """
    from mole.cli.coordinator_process import coordinator_command

    arguments = ["revoke", *(["--forget"] if forget else []), "--", key_id]
    ended = coordinator_command("app.keys", arguments, database)
    if json_output:
        print_json(json.dumps(ended, ensure_ascii=False))
        return
    jobs = f"; unfinished jobs cancelled: {ended['jobs_cancelled']}" if ended["jobs_cancelled"] else ""
    out().print(f"{ended['id']} ({ended['name']}) is revoked{jobs}", markup=False)


def _lines(key: dict[str, Any]) -> list[str]:
    """A key as a paragraph: in a table of 80 columns the id would be cut, by which it is revoked."""
    rate = key["rate_per_minute"] or "any"
    quota = key["quota_per_day"] if key["quota_per_day"] is not None else "any"
    used = _day(key["last_used_at"]) or "never"
    ends = "revoked" if key["revoked_at"] is not None else f"ends {_day(key['expires_at']) or 'never'}"
    return [
        f"{key['id']}  {key['name']}  {ends}",
        f"  {key['prefix']}…: {', '.join(key['scopes'])}; owner {key['owner']}",
        f"  {rate} requests a minute, {key['used_today']} of {quota} texts today, last used {used}",
    ]


def _day(at: float | None) -> str:
    if at is None:
        return ""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return "after the year 9999"
