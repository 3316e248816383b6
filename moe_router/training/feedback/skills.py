"""How good each expert and probe is on its task, from feedback: a posterior mean.

    skill = (s p + sum over callers of w_c q_c) / (s + sum over callers of w_c)

p is the skill known before any feedback, worth s = `PRIOR_ROWS` rows; q_c is the mean quality of
the arm's answers by one caller's word, and w_c the number of the caller's rows. Five of them
(`ALONE_ROWS`) are believed whatever others say, so that one caller moves a skill by a fifth of the
way at most. More of them, up to `CALLER_ROWS`, count only where other callers judged the arm as often,
and no further from the prior than those say. The prior is kept beside the posterior, so that a row
that is learned from twice counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from moe_router.gating.qnetwork import PRIOR_SKILL
from moe_router.gating.task_router import Skills
from moe_router.gating.versions import PRIOR_SKILLS
from moe_router.training.feedback.evidence import Outcome

PRIOR_ROWS = 20.0
ALONE_ROWS = 5.0
CALLER_ROWS = 20.0


def prior_skills(meta: Mapping[str, Any], known: Skills) -> dict[str, dict[str, float]]:
    """What was known of skills before any feedback.

    Args:
        meta: the description of the live Q-network.
        known: the live skills, the probes' own included.
    """
    kept, learned = meta.get(PRIOR_SKILLS, known), meta.get("skills", {})
    prior = {task: dict(own) for task, own in dict(kept).items()}
    for task, own in known.items():
        for name, skill in own.items():
            if learned.get(task, {}).get(name) != skill:  # came since, as a probe that was fitted anew
                prior.setdefault(task, {})[name] = skill
    return prior


def posterior_skills(
    prior: Skills, outcomes: Sequence[Outcome], callers: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Skills by task and name after these outcomes.

    Args:
        prior: what is known without them.
        outcomes: answers whose rightness is known.
        callers: of each row of the replay.
    """
    heard: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in outcomes:
        heard[one.task, one.name][callers[one.row]].append(one.quality)
    skills = {task: dict(own) for task, own in prior.items()}
    for (task, name), by_caller in sorted(heard.items()):
        start = prior.get(task, {}).get(name, PRIOR_SKILL)
        skills.setdefault(task, {})[name] = _posterior(start, list(by_caller.values()))
    return skills


def _posterior(prior: float, heard: Sequence[Sequence[float]]) -> float:
    """The skill after the qualities that each caller stated."""
    weights = [min(len(own), CALLER_ROWS) for own in heard]
    means = [sum(own) / len(own) for own in heard]
    weighed = sum(weights)
    stated = sum(weight * mean for weight, mean in zip(weights, means, strict=True))
    total, rows = PRIOR_ROWS * prior, PRIOR_ROWS
    for weight, mean in zip(weights, means, strict=True):
        alone, others = min(weight, ALONE_ROWS), weighed - weight
        total, rows = total + alone * mean, rows + alone
        borne_out = min(weight - alone, others)
        if borne_out > 0:
            theirs = (stated - weight * mean) / others
            low, high = sorted((prior, theirs))
            total, rows = total + borne_out * min(max(mean, low), high), rows + borne_out
    return total / rows
