from __future__ import annotations

import numpy as np
import pytest

from moe_router.errors import ModelAssetError
from moe_router.gating.versions import RouterWeights, pack, unpack
from tests.unit.moe_router.gating.made import head_weights, q_weights


def test_what_is_packed_comes_out_again():
    given = RouterWeights(head_weights(meta={"encoder": "e"}), q_weights(meta={"encoder": "e"}))
    blob, meta = pack(given)
    found = unpack(blob, meta)
    for own, other in ((given.tasks, found.tasks), (given.q_weights, found.q_weights)):
        assert other.meta == own.meta
        assert other.arrays.keys() == own.arrays.keys()
        assert all(np.array_equal(own.arrays[name], other.arrays[name]) for name in own.arrays)


@pytest.mark.parametrize(("blob", "reason"), [(b"\x80\x04.", "cannot be read"), (b"", "cannot be read")])
def test_what_is_no_safetensors_is_refused(blob, reason):
    with pytest.raises(ModelAssetError, match=reason):
        unpack(blob, {"task": {}, "qnetwork": {}})


def test_a_part_that_is_not_described_is_refused():
    blob, meta = pack(RouterWeights(head_weights(), q_weights()))
    with pytest.raises(ModelAssetError, match="does not describe its qnetwork"):
        unpack(blob, {"task": meta["task"]})
