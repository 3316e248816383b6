from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_router.training.feedback.remembered import RememberingEncoder


class Counting:
    hidden = 3

    def __init__(self, identity: str = "org/e5+1") -> None:
        self.identity = identity
        self.encoded: list[str] = []

    def encode(self, texts: Any) -> Any:
        self.encoded += texts
        return np.array([[len(text), 1, 0] for text in texts], np.float32)


def test_a_text_is_encoded_once_also_by_the_next_process(tmp_path: Path):
    for _ in range(2):
        inner = Counting()
        encoder = RememberingEncoder(inner, tmp_path)  # type: ignore[arg-type]
        assert encoder.encode(["a", "bb", "a"])[:, 0].tolist() == [1, 2, 1]
        encoder.save()
        last = inner.encoded
    assert last == []
    assert encoder.encode([]).shape == (0, 3)


def test_another_encoders_vectors_are_not_taken(tmp_path: Path):
    for identity in ("e+1", "e+2"):
        inner = Counting(identity)
        encoder = RememberingEncoder(inner, tmp_path)  # type: ignore[arg-type]
        encoder.encode(["a"])
        encoder.save()
        assert inner.encoded == ["a"]


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture):
    encoder = RememberingEncoder(Counting(), tmp_path)  # type: ignore[arg-type]
    encoder.encode(["a"])
    encoder.save()
    file = next((tmp_path / "feedback").iterdir())
    file.write_bytes(content)
    RememberingEncoder(Counting(), tmp_path).encode(["a"])  # type: ignore[arg-type]
    assert "cannot be read" in caplog.text
