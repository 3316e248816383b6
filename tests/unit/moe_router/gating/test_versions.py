from __future__ import annotations

import numpy as np
import pytest

from moe_router.errors import ModelAssetError
from moe_router.gating.versions import RouterWeights, learned_beside, pack, shipped_digest, unpack
from moe_router.gating.weights import save
from tests.unit.moe_router.gating.made import head_weights, q_weights


def test_what_is_packed_comes_out_again():
    given = RouterWeights(head_weights(meta={"encoder": "e"}), q_weights(meta={"encoder": "e"}))
    blob, meta = pack(given)
    found = unpack(blob, meta)
    for own, other in ((given.tasks, found.tasks), (given.q_weights, found.q_weights)):
        assert other.meta == own.meta
        assert other.arrays.keys() == own.arrays.keys()
        assert all(np.array_equal(own.arrays[name], other.arrays[name]) for name in own.arrays)


def test_a_version_tells_which_shipped_weights_it_was_learned_beside():
    given = RouterWeights(head_weights(meta={"encoder": "e"}), q_weights(meta={"encoder": "e"}))
    blob, meta = pack(given, "abc")
    assert learned_beside(meta, "abc")
    assert not learned_beside(meta, "def")
    assert learned_beside(pack(given)[1], "def"), "one of before is taken as before"
    assert unpack(blob, meta).tasks.meta == given.tasks.meta


@pytest.mark.parametrize("part", ["task", "qnetwork", "domain", "wording"])
def test_the_digest_changes_with_every_part_and_with_its_description(tmp_path, part):
    for name in ("task", "qnetwork", "domain"):
        save(tmp_path, name, head_weights())
    seen = [shipped_digest(tmp_path)]
    for weights in (head_weights(sharpness=3.0), head_weights(sharpness=3.0, meta={"temperature": 2.0})):
        save(tmp_path, part, weights)
        seen.append(shipped_digest(tmp_path))
    assert len(set(seen)) == 3
    assert shipped_digest(tmp_path) == seen[-1]


@pytest.mark.parametrize(("blob", "reason"), [(b"\x80\x04.", "cannot be read"), (b"", "cannot be read")])
def test_what_is_no_safetensors_is_refused(blob, reason):
    with pytest.raises(ModelAssetError, match=reason):
        unpack(blob, {"task": {}, "qnetwork": {}})


def test_a_part_that_is_not_described_is_refused():
    blob, meta = pack(RouterWeights(head_weights(), q_weights()))
    with pytest.raises(ModelAssetError, match="does not describe its qnetwork"):
        unpack(blob, {"task": meta["task"]})
