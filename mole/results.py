"""What came of one of many items: an answer, or an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mole.errors import MoleAPIError

if TYPE_CHECKING:
    from moe_router.contracts import ClassifyAnswer, Problem


@dataclass(frozen=True, slots=True)
class ItemResult:
    """An item's answer, or its error; exactly one of them is there."""

    index: int
    """of the item among those handed in, from 0"""
    answer: ClassifyAnswer | None
    error: Problem | None

    def unwrap(self) -> ClassifyAnswer:
        """The answer.

        Raises:
            MoleAPIError: there is an error instead.
        """
        if self.answer is None:
            assert self.error is not None  # noqa: S101 - one of the two is there
            raise MoleAPIError(self.error)
        return self.answer
