"""An answer as a row of a table, for files and frames."""

from __future__ import annotations

import json
from typing import Any

from mole.results import ItemResult

COLUMNS = ("result", "confidence", "task", "language", "abstained", "entities", "request_id", "error")
"""Of every table, in this order; a name is prefixed wherever it stands beside the caller's own columns."""


def to_columns(result: ItemResult) -> dict[str, Any]:
    """The columns' values; None where there is nothing to say. `entities` is JSON."""
    answer = result.answer
    if answer is None:
        problem = result.error
        said = None if problem is None else f"{problem.title} ({problem.status}): {problem.detail}"
        return dict.fromkeys(COLUMNS) | {
            "request_id": problem.request_id if problem is not None else None,
            "error": said,
        }
    entities = answer.entities
    return {
        "result": answer.result,
        "confidence": answer.confidence,
        "task": answer.task,
        "language": answer.language,
        "abstained": answer.abstained.reason if answer.abstained is not None else None,
        "entities": None
        if entities is None
        else json.dumps([entity.model_dump() for entity in entities], ensure_ascii=False),
        "request_id": answer.request_id,
        "error": None,
    }


def as_text(value: Any) -> str:
    """A cell's text; bytes, as some programs write text into Parquet, are read as UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
