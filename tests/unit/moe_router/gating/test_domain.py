from __future__ import annotations

import numpy as np
import pytest

from moe_router.gating.domain import domain_head
from tests.unit.moe_router.gating.made import FREE_AXIS, axis, head_weights, registry


def test_a_domain_is_described_by_the_phrasings_of_its_tasks():
    weights = head_weights(("a", "b"), {})
    tasks = registry(["a/x", "c/one", "c/two"])
    prototypes = {"c/one": axis(FREE_AXIS)[None], "c/two": np.stack([axis(FREE_AXIS + 1)] * 3)}
    own = domain_head(tasks, weights, prototypes)
    assert own.names == ("a", "c")
    assert own(axis(0), None).as_dict()["a"] == pytest.approx(1.0, abs=1e-3)
    described = (axis(FREE_AXIS) + 3 * axis(FREE_AXIS + 1)) / np.sqrt(10)
    assert own(described.astype(np.float32), None).as_dict()["c"] == pytest.approx(1.0, abs=1e-3)
    assert own(axis(1), None).none == pytest.approx(1.0, abs=1e-3)  # b is not in the registry
