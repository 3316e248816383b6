from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.assets import xlm_roberta
from moe_router.assets.encoder import CUDA, ensure_encoder, read_info
from moe_router.gating.encoder import Encoder
from tests.unit.moe_router import tiny_encoder
from tests.unit.moe_router.tiny_encoder import HIDDEN, POSITIONS, TEXTS


def session(pooling: Any) -> ort.InferenceSession:
    own = tiny_encoder.model()
    weights = {name: value.numpy() for name, value in own.state_dict().items()}
    shape = xlm_roberta.Shape(2, 4, own.config.layer_norm_eps)
    graph = xlm_roberta.build(weights, shape, pooling)
    return ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def mean() -> ort.InferenceSession:
    return session("mean")


def forward(run: ort.InferenceSession, rows: list[list[int]], width: int) -> Any:
    ids, mask = np.ones((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for row, own in enumerate(rows):
        ids[row, : len(own)], mask[row, : len(own)] = own, 1
    return run.run(None, {"input_ids": ids, "attention_mask": mask})[0]


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert"])
def test_the_graph_computes_what_transformers_does(tmp_path: Path, kind: str) -> None:
    folder = ensure_encoder(tmp_path / "cache", name=str(tiny_encoder.save(tmp_path / "own", kind)))
    ours = Encoder(folder, threads=1).encode(TEXTS)
    theirs = tiny_encoder.embed(tiny_encoder.model(kind), TEXTS)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (ours * theirs).sum(axis=1).min() > 0.98
    # The random model tells the texts apart by more than the quantisation takes away.
    assert (ours @ theirs.T).argmax(axis=1).tolist() == list(range(len(TEXTS)))


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert"])
def test_for_a_gpu_it_computes_the_same_in_floats(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph that a GPU would get, run by the CPU's provider."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    folder = ensure_encoder(tmp_path / "cache", name=str(tiny_encoder.save(tmp_path / "own", kind)))
    assert read_info(folder).precision == "float32"
    monkeypatch.undo()
    ours = Encoder(folder, threads=1).encode(TEXTS)
    np.testing.assert_allclose(ours, tiny_encoder.embed(tiny_encoder.model(kind), TEXTS), atol=1e-5)
    # Where the GPU is gone, another graph is made and named by another folder.
    other = ensure_encoder(tmp_path / "cache", name=str(tmp_path / "own"))
    assert other != folder
    assert (read_info(other).precision, read_info(other).identity) == ("int8", read_info(folder).identity)


def test_the_first_token_can_stand_for_the_text() -> None:
    import torch

    ids = [0, 17, 40, 99, 2]
    with torch.no_grad():
        tokens = tiny_encoder.model()(input_ids=torch.tensor([ids])).last_hidden_state[0]
    theirs = torch.nn.functional.normalize(tokens[0], dim=0).numpy()
    assert forward(session("cls"), [ids], 5)[0] @ theirs > 0.98


TOKENS = st.lists(st.integers(4, 299), min_size=1, max_size=24)


@settings(deadline=None, max_examples=30)
@given(own=TOKENS, others=st.lists(TOKENS, max_size=4), padding=st.integers(0, 8))
def test_a_text_s_vector_depends_on_nothing_else_in_its_batch(
    mean: ort.InferenceSession, own: list[int], others: list[list[int]], padding: int
) -> None:
    alone = forward(mean, [own], len(own))[0]
    width = max(map(len, [own, *others])) + padding
    together = forward(mean, [*others, own], width)[-1]
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_last_position_is_used(mean: ort.InferenceSession) -> None:
    longest = POSITIONS - 2
    assert np.isfinite(forward(mean, [[5] * longest], longest)).all()
    assert forward(mean, [[5] * longest], longest).shape == (1, HIDDEN)
    with pytest.raises(Exception, match="Gather"):
        forward(mean, [[5] * (longest + 1)], longest + 1)


def test_a_column_of_zeros_is_no_fault(mean: ort.InferenceSession) -> None:
    own = tiny_encoder.model()
    weights = {name: value.numpy().copy() for name, value in own.state_dict().items()}
    weights["embeddings.word_embeddings.weight"][7] = 0
    weights["encoder.layer.0.output.dense.weight"][:] = 0
    graph = xlm_roberta.build(weights, xlm_roberta.Shape(2, 4, own.config.layer_norm_eps))
    run = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isfinite(forward(run, [[0, 7, 7, 2]], 4)).all()
