"""A data folder for `mole train expert` made of another: its rows, and texts made beside them."""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from moe_router.errors import RequestError
from moe_router.training.experts.examples import CHOOSING, Row, read_rows, rows_to_choose_by
from moe_router.training.phrasings import folded

Make = Callable[[Sequence[Row], int], list[Row]]
"""From a dataset's training rows and a seed: all rows to train on."""
Read = Callable[[Path], list[Row]]
"""Reads another dataset in its own format."""


def extend(
    description: str | None,
    make: Make,
    choosing: Callable[[Sequence[Row]], Sequence[Row]] = lambda rows: (),
    further: Mapping[str, Read] | None = None,
) -> None:
    """The command of a generator: reads a folder, writes another.

    The validation file is copied as it is; `choosing` makes more rows to choose by. Each of `further` is an
    option that names a dataset, whose rows are mixed with what is made, but for those of the validation file.
    """
    further = further or {}
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True, help="folder with train and validation.jsonl.gz")
    options.add_argument("--output", type=Path, required=True, help="the folder to write")
    options.add_argument("--seed", type=int, default=0)
    for name in further:
        options.add_argument(f"--{name}", type=Path, help="rows of this dataset beside those that are made")
    given = options.parse_args()
    if given.output.resolve() == given.data.resolve():
        options.error("--output must be another folder than --data")
    try:
        rows = read_rows(given.data / "train.jsonl.gz")
        named = [row for name, read in further.items() if (path := vars(given)[name]) for row in read(path)]
        beside = _unknown_to(given.data / "validation.jsonl.gz", named)
    except RequestError as error:
        options.error(str(error))
    made = make(rows, given.seed)
    if beside:
        made = [*made, *beside]
        random.Random(given.seed).shuffle(made)  # noqa: S311  an order, no secret
    given.output.mkdir(parents=True, exist_ok=True)
    _write(given.output / "train.jsonl.gz", made)
    to_choose_by = [*rows_to_choose_by(given.data), *choosing(rows)]
    if to_choose_by:
        _write(given.output / CHOOSING, to_choose_by)
    shutil.copy(given.data / "validation.jsonl.gz", given.output)
    told = f" and {len(beside)} of other datasets" if beside else ""
    print(f"{given.output}: {len(made)} rows made of {len(rows)}{told}")


def _unknown_to(path: Path, rows: Sequence[Row]) -> list[Row]:
    judging = {folded(row.text) for row in read_rows(path)}
    return [row for row in rows if folded(row.text) not in judging]


def _write(path: Path, rows: Sequence[Row]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows)


def _plain(row: Row) -> dict[str, object]:
    known: dict[str, object] = {"text": row.text, "language": row.language}
    if row.context:
        known["context"] = row.context
    if row.label:
        return known | {"label": row.label}
    entities = [e.model_dump(include={"type", "start", "end", "value"}) for e in row.entities]
    return known | {"entities": entities}
