"""What is known of skills: learned, or measured when a probe was fitted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from moe_router.gating.assembly import known_skills
from moe_router.gating.probe import Probe
from moe_router.gating.versions import PRIOR_SKILLS


def probe(skill: float | None) -> Probe:
    return cast(Probe, SimpleNamespace(skill=skill))


LEARNED: dict[str, Any] = {"skills": {"a/x": {"m": 0.4, "probe": 0.5}}, PRIOR_SKILLS: {"a/x": {"probe": 0.8}}}


@pytest.mark.parametrize(
    ("meta", "measured", "known"),
    [
        ({}, 0.8, {"probe": 0.8}),
        ({}, None, {}),
        (LEARNED, 0.8, {"m": 0.4, "probe": 0.5}),
        (LEARNED, 0.9, {"m": 0.4, "probe": 0.9}),
        (LEARNED, None, {"m": 0.4, "probe": 0.5}),
        (LEARNED | {PRIOR_SKILLS: {}}, 0.9, {"m": 0.4, "probe": 0.9}),
        ({"skills": LEARNED["skills"]}, 0.9, {"m": 0.4, "probe": 0.5}),
    ],
)
def test_what_was_learned_of_a_probe_holds_until_another_is_fitted(meta, measured, known):
    assert known_skills(meta, {"a/x": probe(measured)}).get("a/x", {}) == known
    assert LEARNED["skills"]["a/x"]["probe"] == 0.5
