from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import ModelAssetError
from moe_router.gating.encoder import MAX_BATCH_TOKENS, Encoder, _batches
from tests.unit.moe_router.tiny_encoder import HIDDEN, POSITIONS, TEXTS


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Encoder:
    return Encoder(encoder_folder, threads=1)


def test_texts_become_unit_vectors_in_their_order(encoder):
    together = encoder.encode(TEXTS)
    assert together.shape == (len(TEXTS), HIDDEN)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert together == pytest.approx(alone, abs=1e-5)
    assert encoder.encode(TEXTS[::-1]) == pytest.approx(together[::-1], abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=200), st.lists(st.text(max_size=60), max_size=5))
def test_a_text_s_vector_is_the_same_alone_and_in_any_company(encoder, own, others):
    alone = encoder.encode([own])[0]
    assert encoder.encode([*others, own])[-1] == pytest.approx(alone, abs=1e-5)


def test_no_texts_make_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, HIDDEN)


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "\0", "\ud800", "a\ud83dz", "🤷🏽‍♀️", "e\u0301" * 9, "\u202e"]
)
def test_odd_texts_are_encoded_too(encoder, text):
    assert np.isfinite(encoder.encode([text])).all()


def test_a_lone_surrogate_counts_for_nothing(encoder):
    assert encoder.encode(["a\ud83dz"]) == pytest.approx(encoder.encode(["az"]), abs=1e-6)


def test_long_texts_are_cut(encoder, encoder_folder):
    huge = "word " * 200_000
    assert len(encoder.tokenize([huge])[0]) == encoder.max_tokens == POSITIONS - 2
    short = Encoder(encoder_folder, max_tokens=10, threads=1)
    (tokens,) = short.tokenize([huge])
    assert len(tokens) == 10
    assert (tokens[0], tokens[-1]) == (0, 2)  # the special tokens survive the cut
    assert short.encode([huge]) == pytest.approx(short.encode(["word " * 100]), abs=1e-6)


@pytest.mark.parametrize("blank", [" ", "\n", "\r\n ", "\t", "\u3000"])
def test_white_space_does_not_push_a_text_out_of_sight(encoder, blank):
    far = f"{blank * 5_000}a text{blank * 5_000}of four words"
    assert encoder.tokenize([far]) == encoder.tokenize(["a text of four words"])


def test_the_prefix_is_put_before_each_text(encoder, encoder_folder, tmp_path):
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "prefixed"))
    info = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps(info | {"prefix": "query: "}))
    prefixed = Encoder(folder, threads=1)
    assert prefixed.tokenize(["abc"]) == encoder.tokenize(["query: abc"])
    assert prefixed.identity == encoder.identity


def test_threads_may_share_it(encoder):
    expected, found = encoder.encode(TEXTS), {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: encoder.encode(TEXTS)})) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((found[i] == expected).all() for i in range(4))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "encoder.json"])
@pytest.mark.parametrize("damage", [None, b"", b"\xffrubbish"])
def test_a_missing_or_damaged_file_is_refused(encoder_folder, tmp_path, name, damage):
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "spoilt"))
    (folder / name).unlink()
    if damage is not None:
        (folder / name).write_bytes(damage)
    with pytest.raises(ModelAssetError, match="spoilt"):
        Encoder(folder)


@given(st.lists(st.integers(1, 600), max_size=80))
@settings(deadline=None)
def test_batches_hold_each_text_once_and_waste_little(lengths):
    batches = _batches(lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        own = [lengths[index] for index in batch]
        assert len(own) == 1 or len(own) * max(own) <= MAX_BATCH_TOKENS
        assert max(own) <= 1.34 * min(own) + 4
