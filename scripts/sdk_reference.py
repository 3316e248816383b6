"""Writes docs/reference/sdk.md from the SDK's docstrings, or checks that it is up to date."""

from __future__ import annotations

import sys
from inspect import cleandoc, getdoc, signature
from typing import Any

import mole
from scripts.pages import ROOT, main

TARGET = ROOT / "docs" / "reference" / "sdk.md"
HEAD = """# Python

This page is made from the SDK's docstrings by `make docs`. `pip install mole-router` alone brings it, with
httpx and pydantic and without a model. Answers are the models of the [API](api.md), with types.

```python
from mole import Mole

with Mole("http://127.0.0.1:8000") as client:
    print(client.classify("Great phone!", "How many stars would this review give?").result)
```

`AsyncMole` has the same methods, to be awaited, and `aclose` for `close`.
"""
METHODS = (
    "classify", "classify_batch", "classify_many", "route", "feedback", "tasks", "workers", "health",
    "submit_job", "job", "jobs", "cancel_job", "job_results", "job_result_lines",
)  # fmt: skip
OTHERS = ("classify_frame", "Retry", "ItemResult", "MoleAPIError", "MoleConnectionError", "MoleClientError")


def page() -> str:
    """The whole page."""
    parts = [HEAD, part("Mole", mole.Mole, "##")]
    with mole.Mole() as client:
        parts += [part(f"Mole.{name}", getattr(client, name), "###") for name in METHODS]
    parts += [part(name, getattr(mole, name), "##") for name in OTHERS]
    return "".join(parts)


def part(name: str, thing: Any, heading: str) -> str:
    """A name, how it is called, and its docstring as it is written."""
    try:
        shown = str(signature(thing)).replace("'", "")
    except ValueError:  # an exception without a constructor of its own
        shown = ""
    call = f"{name.rpartition('.')[2]}{shown}"
    text = cleandoc(getdoc(thing) or "")
    return f"\n{heading} `{name}`\n\n```text\n{wrapped(call)}\n\n{text}\n```\n"


def wrapped(call: str) -> str:
    """A long signature with an argument a line."""
    if len(call) <= 100:
        return call
    name, _, rest = call.partition("(")
    arguments, _, answer = rest.rpartition(")")
    lines = [f"    {argument}," for argument in split(arguments)]
    return "\n".join([f"{name}(", *lines, f"){answer}"])


def split(arguments: str) -> list[str]:
    """At the commas that are in no brackets."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(arguments):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            found.append(arguments[start:place].strip())
            start = place + 1
    return [*found, arguments[start:].strip()]


if __name__ == "__main__":
    sys.exit(main({TARGET: page()}, __doc__))
