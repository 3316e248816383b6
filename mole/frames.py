"""pandas: a column of texts in, columns of answers out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mole.client import Mole
from mole.rows import COLUMNS, as_text, to_columns

if TYPE_CHECKING:
    import pandas as pd


def classify_frame(
    frame: pd.DataFrame,
    text: str = "text",
    description: str | None = None,
    *,
    client: Mole | None = None,
    description_column: str | None = None,
    prefix: str = "mole_",
    concurrency: int = 64,
    **options: Any,
) -> pd.DataFrame:
    """A copy of a frame with the answers to one column's texts.

    Adds `mole_result`, `mole_confidence`, `mole_task`, `mole_language`, `mole_abstained` (the reason),
    `mole_entities` (a list), `mole_request_id` and `mole_error` (what went wrong with this row). Rows
    without a text have none of them. The index is kept.

    Args:
        frame: Any frame.
        text: The column of the texts.
        description: What to find out.
        client: Whom to ask; without one, the coordinator at port 8000 of this machine.
        description_column: A column that says for each row what to find out, before `description`.
        prefix: Before the new columns' names.
        concurrency: Rows in flight at once.
        **options: As of `Mole.classify`.

    Raises:
        KeyError: the frame has no such column.
        ValueError: the frame has one of the new columns already, or several of the text's name.
        MoleAPIError: a whole batch was refused.
        MoleConnectionError: the coordinator did not answer.
    """
    import pandas as pd

    taken = [prefix + name for name in COLUMNS if prefix + name in frame.columns]
    if taken:
        raise ValueError(f"the frame has a column {taken[0]!r} of its own; choose another prefix")
    for name in (text, description_column):
        if name is not None and isinstance(frame[name], pd.DataFrame):
            raise ValueError(f"the frame has several columns {name!r}; give them different names")
    texts = frame[text]
    asked = frame[description_column] if description_column is not None else None
    wanted = [position for position, value in enumerate(texts) if not _missing(value)]

    def items() -> Iterator[Mapping[str, Any]]:
        for position in wanted:
            own = None if asked is None or _missing(asked.iloc[position]) else as_text(asked.iloc[position])
            yield {"text": as_text(texts.iloc[position]), "description": own}

    found: list[dict[str, Any]] = [dict.fromkeys(COLUMNS) for _ in range(len(frame))]
    with nullcontext(client) if client is not None else Mole() as asking:
        for result in asking.classify_many(items(), description, concurrency=concurrency, **options):
            columns = to_columns(result)
            columns["entities"] = json.loads(columns["entities"]) if columns["entities"] else None
            found[wanted[result.index]] = columns
    added = pd.DataFrame(found, index=frame.index, columns=list(COLUMNS)).add_prefix(prefix)
    return pd.concat([frame.copy(), added], axis="columns")


def _missing(value: Any) -> bool:
    """None, NaN and pandas' NA; also a text of nothing but blanks."""
    import pandas as pd

    return not value.strip() if isinstance(value, str) else bool(pd.isna(value))
