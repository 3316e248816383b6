"""Reads the tables of our own sentences and texts under `data`: a row a line, fields parted by tabs."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

DATA = resources.files("moe_router.training") / "data"


def fields_of(table: Traversable) -> list[list[str]]:
    """The fields of each row."""
    return [line.split("\t") for line in table.read_text("utf-8").splitlines()]
