"""The real `openai` client, LiteLLM's and Infinity's, against a real process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.stubs import files
from tests.stubs.gating import NOTHING_FITS
from tests.stubs.processes import Stage

ROOT = Path(__file__).resolve().parents[3]
SENTIMENT = f"mole/{files.SENTIMENT}"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    stage = Stage(Path(tmp_path_factory.mktemp("facade")))
    worker = stage.worker()
    files.write(stage.folder, files.mapping(worker.url))
    coordinator = stage.coordinator()
    worker.wait_for("/api/v1/health/ready")
    coordinator.wait_for("/api/v1/health/ready")
    yield coordinator.url + "/v1"
    stage.stop()


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as made:
        yield made


def test_chat_completions_with_logprobs(client: openai.OpenAI):
    told = client.chat.completions.create(
        model=SENTIMENT,
        messages=[{"role": "system", "content": "Good or bad?"}, {"role": "user", "content": "positive"}],
        temperature=0,
        max_tokens=10,
        logprobs=True,
        top_logprobs=3,
    )
    (choice,) = told.choices
    assert (choice.message.content, choice.finish_reason, told.model) == ("positive", "stop", SENTIMENT)
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    likeliest = choice.logprobs.content[0].top_logprobs
    assert {label.token for label in likeliest} == set(files.LABELS)
    assert sum(math.exp(label.logprob) for label in likeliest) == pytest.approx(1.0)


def test_streaming(client: openai.OpenAI):
    with client.chat.completions.create(
        model="mole/auto",
        messages=[{"role": "user", "content": "neutral"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "neutral"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None


def test_an_abstention_is_a_refusal(client: openai.OpenAI):
    told = client.chat.completions.create(
        model="mole/auto",
        messages=[{"role": "system", "content": NOTHING_FITS}, {"role": "user", "content": "x"}],
    )
    assert told.choices[0].message.content is None
    assert (told.choices[0].message.refusal or "").startswith("out_of_scope")


def test_models(client: openai.OpenAI):
    names = [model.id for model in client.models.list()]
    assert names == ["mole/auto", SENTIMENT, f"mole/{files.PII}", f"mole/{files.GERMAN_ONLY}"]
    assert client.models.retrieve(SENTIMENT).owned_by == "mole"


def test_errors_are_the_clients_own_classes(client: openai.OpenAI):
    user = [{"role": "user", "content": "x"}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=user)  # type: ignore[call-overload]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=SENTIMENT, messages=user, n=2)  # type: ignore[call-overload]
    assert (wrong.value.param, wrong.value.type) == ("n", "invalid_request_error")
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model=SENTIMENT, prompt="x")


async def test_the_asynchronous_client(base_url: str):
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:
        told = await client.chat.completions.create(
            model=SENTIMENT, messages=[{"role": "user", "content": "negative"}]
        )
    assert told.choices[0].message.content == "negative"


def ask_by(client: str, base_url: str) -> Any:
    """What a client of `OTHER_CLIENTS`, a folder made by `pip install --no-deps --target`, reads."""
    folder = os.environ.get("OTHER_CLIENTS")
    if folder is None:
        pytest.skip("OTHER_CLIENTS names no folder with what .ci/clients.txt lists")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), folder)),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it asks another host for prices
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.facade.other_clients", client, base_url],
        capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_litellm(base_url: str):
    assert ask_by("litellm", base_url) == {
        "label": "positive", "streamed": "neutral", "several": ["negative", "positive"],
        "missing": "NotFoundError", "wrong": "BadRequestError",
    }  # fmt: skip


@pytest.mark.slow
def test_infinitys_client(base_url: str):
    told = ask_by("infinity", base_url)
    assert (told["object"], told["model"], told["usage"]) == ("classify", SENTIMENT, 0)
    assert len(told["labels"]) == 2
    for labels in told["labels"]:
        assert {label for label, _score in labels} == set(files.LABELS)
        assert sum(score for _label, score in labels) == pytest.approx(1.0)
        assert labels == sorted(labels, key=lambda label: -label[1])
    assert told["unspecified"] == 1
