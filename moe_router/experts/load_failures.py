"""Base models that could not be loaded."""

from __future__ import annotations

from dataclasses import dataclass

from moe_router.experts.roster import told


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a model could not be loaded; not the error itself, whose frames hold what was half loaded."""

    kind: type[Exception]
    reason: str

    @classmethod
    def of(cls, error: Exception) -> LoadFailure:
        """What is kept of an error."""
        return cls(type(error), told(error))
