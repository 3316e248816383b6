from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.assets import e5s1
from moe_router.errors import ModelAssetError
from tests.unit.moe_router import tiny_encoder
from tests.unit.moe_router.assets import e5s1_file


def test_every_array_is_read_by_its_name_in_transformers(tmp_path: Path) -> None:
    weights, shape = e5s1.read(e5s1_file.write(tmp_path / "packed.bin"))
    assert (shape.layers, shape.heads, shape.epsilon) == (2, 4, pytest.approx(1e-5))
    assert set(weights) == set(tiny_encoder.model().state_dict())
    written = e5s1_file.tensors()
    for name, kind in (
        ("emb.word", "embeddings.word_embeddings.weight"),
        ("l0.q.w", "encoder.layer.0.attention.self.query.weight"),
        ("l1.ao.b", "encoder.layer.1.attention.output.dense.bias"),
        ("l1.fi.w", "encoder.layer.1.intermediate.dense.weight"),
        ("l0.fo.w", "encoder.layer.0.output.dense.weight"),
        ("l1.oln.w", "encoder.layer.1.output.LayerNorm.weight"),
    ):
        assert weights[kind].dtype == np.float32
        np.testing.assert_array_equal(weights[kind], written[name][1])


def test_positions_begin_behind_the_two_rows_of_the_padding(tmp_path: Path) -> None:
    weights, _ = e5s1.read(e5s1_file.write(tmp_path / "packed.bin"))
    table = weights["embeddings.position_embeddings.weight"]
    assert not table[:2].any()
    np.testing.assert_array_equal(table[2:], e5s1_file.tensors()["emb.pos"][1])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_truncated_file_is_damaged_wherever_it_ends(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = e5s1_file.usual()
    path = tmp_path_factory.getbasetemp() / "truncated.bin"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ModelAssetError, match=r"truncated\.bin is"):
        e5s1.read(path)


@settings(deadline=None, max_examples=100)
@given(at=st.integers(4, 2_000), junk=st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_refused_or_read_but_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes
) -> None:
    whole = bytearray(e5s1_file.usual())
    whole[at : at + len(junk)] = junk
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(whole)
    with contextlib.suppress(ModelAssetError):
        weights, _ = e5s1.read(path)
        assert all(np.isfinite(array).all() for array in weights.values())


def test_what_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(e5s1_file.content(magic=b"GGUF"))
    with pytest.raises(ModelAssetError, match="no E5S1 file"):
        e5s1.read(path)
    path.write_bytes(e5s1_file.content(block=64))
    with pytest.raises(ModelAssetError, match="blocks of 64 weights, expected 32"):
        e5s1.read(path)
    endless = e5s1_file.tensors()
    endless["l1.q.b"][1][3] = np.inf
    path.write_bytes(e5s1_file.content(endless))
    with pytest.raises(ModelAssetError, match=r"l1\.q\.b holds what is no number"):
        e5s1.read(path)
    strange = {**e5s1_file.tensors(), "l0.qkv.w": e5s1_file.tensors()["l0.q.w"]}
    path.write_bytes(e5s1_file.content(strange))
    with pytest.raises(ModelAssetError, match="damaged"):
        e5s1.read(path)
    for missing in (tmp_path / "gone.bin", tmp_path):
        with pytest.raises(ModelAssetError, match="cannot be read"):
            e5s1.read(missing)
