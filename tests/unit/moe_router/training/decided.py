"""Requests, and decisions on them, made by hand."""

from __future__ import annotations

from collections.abc import Mapping

from moe_router.contracts import Abstention, Timings
from moe_router.gating.decision import Decision
from moe_router.training.evaluate import Judged
from moe_router.training.phrasings import OUT_OF_SCOPE, Phrasing
from moe_router.training.requests import Kind, Request, Text

DECLINED = Abstention(reason="low_confidence", detail="unsure", nearest_tasks=[])


def decision(
    best: str, confidence: float, domains: Mapping[str, float] | None = None, *, kept: bool = True
) -> Decision:
    """For a task, or abstained from though it is the likeliest."""
    return Decision(
        language="en", language_probability=1.0, domain=best.split("/")[0],
        domain_probabilities=dict(domains or {best.split("/")[0]: 1.0}), task=best if kept else None,
        task_probabilities={best: 1.0}, confidence=confidence, abstained=None if kept else DECLINED,
        steps=[], timings=Timings(language=1.0, task=1.0, total=4.0), encoder_passes=1, via="auto",
        router=None, state=None, probe=None,
    )  # type: ignore[arg-type]  # fmt: skip


def judged(target: str, made: Decision, kind: Kind = "matching") -> Judged:
    """A decision on a request for a task, or for none: `oos/…`; `text_only` has no description."""
    text = Text("a text", target, "en")
    asked = Phrasing("en-1", "family", target, "order", "en", "What is it?", "validation")
    best = next(iter(made.task_probabilities))
    request = Request(None if kind == "text_only" else asked, text, target, kind)
    return Judged(request, made, best, in_scope=not target.startswith(OUT_OF_SCOPE))


FEW = (
    judged("finance/x", decision("finance/x", 0.95, {"finance": 0.9, "social": 0.05, "none": 0.05})),
    judged("finance/x", decision("finance/x", 0.3, {"finance": 0.4, "social": 0.0, "none": 0.6}, kept=False)),
    judged("social/y", decision("finance/x", 0.65, {"finance": 0.7, "social": 0.3, "none": 0.0})),
    judged("oos/cooking", decision("finance/x", 0.85)),
    judged("oos/cooking", decision("finance/x", 0.05, kept=False)),
)
"""Answered rightly; abstained from, though the likeliest was right; answered wrongly; answered, though no
task fits; rightly abstained from."""
