"""The engine on a server stand-in that speaks the two forms in use; the real one is in tests/integration."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from moe_router.contracts import ExpertRequest
from moe_router.errors import DeadlineError, ModelAssetError, NoWorkerError
from moe_router.experts.engines.base import (
    Decision,
    DecodeJob,
    Decoder,
    LabelJob,
    ServerAwayError,
    infer_halving,
)
from moe_router.experts.engines.openai import MOST_BYTES, PARALLEL, OpenAIEngine, probabilities_of
from moe_router.experts.engines.text_tokens import TextTokens, text_of
from moe_router.experts.engines.told_choices import ToldChoices
from moe_router.experts.pool import PoolConfig, SingleModelPool
from moe_router.experts.prompting import Template
from moe_router.experts.scoring import LabelTrie
from moe_router.experts.task_expert import Finding, TaskExpert
from moe_router.registry import BaseModelSpec, Expert, Registry, TaskSpec

NEXT = {
    "Text: good\nMood:": {" pos": 0.5, " ne": 0.2, " negative": 0.1, " what": 0.2},
    "Text: good\nMood: ne": {"gative": 0.25, "utral": 0.75},
}
TOKENS = TextTokens(100)


class Server:
    def __init__(self, models: tuple[str, ...] = ("base", "tuned"), *, chat_form: bool = False) -> None:
        self.models = models
        self.asked: list[dict[str, Any]] = []
        self.chat_form = chat_form
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": name} for name in self.models]})
        body = json.loads(request.content)
        self.asked.append(body)
        if self.status != 200:
            return httpx.Response(self.status, text=body["prompt"])
        told = {token: math.log(p) for token, p in NEXT[body["prompt"]].items()}
        listed = [{"token": token, "logprob": value} for token, value in told.items()]
        logprobs = {"content": [{"top_logprobs": listed}]} if self.chat_form else {"top_logprobs": [told]}
        return httpx.Response(200, json={"choices": [{"text": "x", "logprobs": logprobs}]})


def engine_on(server: Server, model: str = "base") -> OpenAIEngine:
    client = httpx.Client(transport=httpx.MockTransport(server))
    return OpenAIEngine("http://llm:8080/v1/", model, TOKENS, client=client)


def job(labels: tuple[str, ...], adapter: str | None = None) -> LabelJob:
    template = Template("Text: {{input}}\nMood:")
    trie = LabelTrie([TOKENS.encode(" " + label, trusted=False) for label in labels], TOKENS.line_end)
    return LabelJob(TOKENS.prompt(template, {"input": "good"}, adapter), trie)


@pytest.mark.parametrize("chat_form", [False, True])
def test_labels_get_the_probability_of_the_tokens_that_lead_to_them(chat_form: bool) -> None:
    server = Server(chat_form=chat_form)
    [scores] = engine_on(server).infer([job(("positive", "negative", "neutral"))])
    assert scores is not None
    np.testing.assert_allclose(np.exp(scores), [0.5 / 0.8, (0.1 + 0.05) / 0.8, 0.15 / 0.8], atol=1e-6)
    assert len(server.asked) == 2
    assert all(body["max_tokens"] == 1 for body in server.asked)


def test_a_label_that_is_not_told_is_impossible_unless_none_is() -> None:
    [scores, none_told] = engine_on(Server()).infer([job(("positive", "unheard")), job(("unheard", "so"))])
    assert scores is not None
    assert np.exp(scores).tolist() == [1.0, 0.0]
    assert none_told is not None
    np.testing.assert_allclose(np.exp(none_told), [0.5, 0.5])


@pytest.mark.parametrize("closing", ["\n", "\n\n", "\nText", "", "</s>"])
def test_a_label_that_begins_another_has_what_closes_it(
    closing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NEXT, "Text: good\nMood:", {" card": 1.0})
    monkeypatch.setitem(NEXT, "Text: good\nMood: card", {closing: 0.6, "_": 0.2, "s": 0.2})
    [scores] = engine_on(Server()).infer([job(("card", "card_arrival"))])
    assert scores is not None
    np.testing.assert_allclose(np.exp(scores), [0.75, 0.25])


def test_a_log_probability_that_is_none_makes_a_bad_answer() -> None:
    with pytest.raises(NoWorkerError, match="no log-probabilities"):
        probabilities_of({"choices": [{"logprobs": {"top_logprobs": [{"a": 1000.0}]}}]})


@pytest.mark.parametrize("number", ["NaN", "709", "Infinity", "0.5"])
def test_numbers_that_are_no_log_probabilities_are_refused(number: str) -> None:
    answer = json.loads(
        f'{{"choices": [{{"logprobs": {{"top_logprobs": [{{" a": {number}, " b": -1}}]}}}}]}}'
    )
    with pytest.raises(NoWorkerError, match="no log-probabilities"):
        probabilities_of(answer)


def test_what_is_impossible_or_certain_is_told_as_such() -> None:
    answer = {"choices": [{"logprobs": {"top_logprobs": [{" a": -math.inf, " b": 1e-7}]}}]}
    assert probabilities_of(answer) == {" a": 0.0, " b": 1.0}


@pytest.mark.parametrize("sign", ["", "▁", "Ġ"])
def test_a_space_that_a_server_does_not_tell_is_put_back(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for prompt, told in NEXT.items():
        spelt = {token.replace(" ", sign): p for token, p in told.items()}
        monkeypatch.setitem(NEXT, prompt, spelt)
    [scores] = engine_on(Server()).infer([job(("positive", "negative", "neutral"))])
    np.testing.assert_allclose(np.exp(scores), [0.5 / 0.8, (0.1 + 0.05) / 0.8, 0.15 / 0.8], atol=1e-6)


@pytest.mark.parametrize("sign", ["", "▁", "Ġ"])
def test_entities_are_found_where_a_server_does_not_tell_spaces(sign: str) -> None:
    tokens = ("-", " Ann", " Lee", " =", " PERSON", "\n", "-", " END")
    found = extracted(Writer(*tokens, sign=sign), "Yes, Ann Lee called.")
    assert [(e.value, e.type) for e in found.entities or []] == [("Ann Lee", "PERSON")]


def test_that_no_token_begins_a_label_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = engine_on(Server())
    engine.infer([job(("unheard", "so"))] * 3)
    assert caplog.text.count("begins a label") == 1
    assert "good" not in caplog.text


def test_an_answer_without_an_end_is_given_up() -> None:
    def dripping(request: httpx.Request) -> httpx.Response:
        def parts() -> Iterator[bytes]:
            while True:
                time.sleep(0.02)
                yield b" "

        return httpx.Response(200, content=parts())

    client = httpx.Client(transport=httpx.MockTransport(dripping), timeout=0.2)
    with pytest.raises(ServerAwayError, match="ReadTimeout"):
        OpenAIEngine("http://llm/v1", "base", TOKENS, client=client)


def test_nothing_is_asked_for_who_has_gone() -> None:
    server = Server()
    gone, waits = replace(job(("positive", "so")), wanted=lambda: False), job(("positive", "so"))
    dropped, answered = engine_on(server).infer_each([gone, waits])
    assert isinstance(dropped, DeadlineError)
    assert not isinstance(answered, BaseException)
    assert len(server.asked) == 1


def test_a_label_unseen_in_the_prior_alone_is_not_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = tuple(f"{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(77))
    spec = TaskSpec.model_validate({"base_model_key": "big", "label_set": labels})
    expert = TaskExpert(Expert("x", "a/b", "big", None, None, None, None, 1.0), spec, None, TOKENS, None)
    texts = [text_of(job.prompt.head) + text_of(job.prompt.tail) for job in expert.warm_up_jobs()]
    work = expert.prepare(ExpertRequest(task_key="a/b", text="good", language="en"))
    asked = text_of(work.jobs[0].prompt.head) + text_of(work.jobs[0].prompt.tail)
    lead = expert._template.label_prefix
    seen = {lead + label: 0.05 for label in labels[:20]}
    for text in texts:
        monkeypatch.setitem(NEXT, text, seen)
    monkeypatch.setitem(NEXT, asked, {lead + labels[3]: 0.9, lead + labels[50]: 0.02})
    engine = engine_on(Server())
    expert.warmed_up(engine.infer(expert.warm_up_jobs()))
    found = expert.finish(work, engine.infer(work.jobs))
    assert found.result == labels[3]
    assert found.confidence == pytest.approx(0.9 / 0.92)


class Writer:
    """A server whose model wants to write an answer of tokens that carry their space, as most models do.

    Anywhere but at the end of one of its tokens it has nothing sensible to say.
    """

    def __init__(self, *tokens: str, sign: str = " ") -> None:
        self.tokens = tokens
        self.sign = sign  # as which it tells a space before a word
        self.said: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "base"}]})
        prompt: str = json.loads(request.content)["prompt"]
        self.said.append(prompt[prompt.rindex("Answer:") + len("Answer:") :])
        ways = {"".join(self.tokens[:k]): token for k, token in enumerate(self.tokens)}
        token = ways.get(self.said[-1])
        told = {token.replace(" ", self.sign): -0.01} if token else {"?": -0.5, "\n\n": -1.0}
        return httpx.Response(200, json={"choices": [{"logprobs": {"top_logprobs": [told]}}]})


def extracted(server: Writer, text: str) -> Finding:
    spec = TaskSpec.model_validate(
        {"base_model_key": "m", "kind": "extraction", "label_set": ["PERSON", "ORG"]}
    )
    expert = TaskExpert(Expert("e", "f/pii", "m", None, None, None, None, 1.0), spec, None, TOKENS, None)
    client = httpx.Client(transport=httpx.MockTransport(server))
    engine = OpenAIEngine("http://llm:8080/v1/", "base", TOKENS, client=client)
    work = expert.prepare(ExpertRequest(task_key="f/pii", text=text, language="en"))
    return expert.finish(work, engine.infer(work.jobs))


def test_entities_are_asked_for_where_the_models_tokens_end() -> None:
    server = Writer(
        "-", " Ann", " Lee", " =", " PERSON", "\n", "-", " An", "ton", " =", " PERSON", "\n", "-", " END"
    )
    found = extracted(server, "Yes, Ann Lee called Annabel, Andrew and Anton.")
    assert [(e.value, e.type) for e in found.entities or []] == [("Ann Lee", "PERSON"), ("Anton", "PERSON")]
    assert found.confidence > 0.99
    assert not any(said.endswith(" ") for said in server.said)


def test_a_space_that_is_a_token_of_its_own_is_followed() -> None:
    found = extracted(Writer("-", " ", "0", "1", " =", " ORG", "\n", "-", " END"), "Call 01 or Ann.")
    assert [(e.value, e.type) for e in found.entities or []] == [("01", "ORG")]


def test_ways_of_parting_a_word_add_up() -> None:
    told = {"-": {" Bo": 0.5, " ": 0.3, " Bob": 0.2}, "- ": {"Ann": 1.0}, "- Bo": {"b": 0.8, "x": 0.2}}
    choices = ToldChoices(told.__getitem__)
    assert choices.shares("- ", "BA") == pytest.approx([0.7, 0.3])
    assert choices.shares("- Bo", "bx") == pytest.approx([0.2 + 0.5 * 0.8, 0.5 * 0.2])


def test_a_list_ends_where_nothing_told_leads_on() -> None:
    found = extracted(
        Writer("-", " Ann", " Lee", " =", " PERSON", "\n", "-", " nobody"), "Yes, Ann Lee called."
    )
    assert [(e.value, e.type) for e in found.entities or []] == [("Ann Lee", "PERSON")]
    assert found.confidence < 1e-6
    assert extracted(Writer("-", "?"), "Yes, Ann Lee called.").entities == []


def test_what_decoding_fed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_on(Server())

    def decoder() -> Decoder:
        yield Decision(TOKENS.encode("- 34567", trusted=False), (65,))

    prompt = TOKENS.prompt(Template("Text: {{input}}\nMood:"), {"input": "good"}, None)
    monkeypatch.setitem(NEXT, "Text: good\nMood:- 34567", {"A": 1.0})
    assert engine.infer([DecodeJob(prompt, decoder)]) == [2]


def test_an_adapter_is_a_model_of_the_server() -> None:
    server = Server()
    engine = engine_on(server)
    engine.load_adapter("tuned-0", "tuned")
    engine.infer([job(("positive", "negative"), "tuned-0"), job(("positive", "negative"))])
    assert sorted(body["model"] for body in server.asked if "ne" not in body["prompt"][-3:]) == [
        "base",
        "tuned",
    ]
    with pytest.raises(ModelAssetError, match=r"serves no 'other'; it serves: base, tuned"):
        engine.load_adapter("other-1", "other")


def test_a_server_that_lacks_the_model_or_is_not_there_is_told() -> None:
    with pytest.raises(ModelAssetError, match="serves no 'big'"):
        engine_on(Server(), "big")

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    def refusing(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401)

    def hanging(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    def overrun(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429)

    def odd(answer: str) -> Callable[[httpx.Request], httpx.Response]:
        return lambda request: httpx.Response(200, text=answer)

    for server, kind, reason in (
        (away, ServerAwayError, "ConnectError"),
        (refusing, ModelAssetError, "401"),
        (hanging, ServerAwayError, "ReadTimeout"),
        (overrun, ServerAwayError, "429"),
        (odd("rubbish"), ModelAssetError, "JSONDecodeError"),
        (odd("[" * 200_000), ModelAssetError, "RecursionError"),
        (odd(" " * (MOST_BYTES + 1)), ModelAssetError, "AnswerTooLongError"),
        (odd('{"data": null}'), ModelAssetError, "is no list of models"),
        (odd('{"data": ["base"]}'), ModelAssetError, "is no list of models"),
    ):
        client = httpx.Client(transport=httpx.MockTransport(server))
        with pytest.raises(kind, match=reason):
            OpenAIEngine("http://llm/v1", "base", TOKENS, client=client)
        assert client.is_closed


def test_a_failing_server_is_no_worker_and_the_text_stays_out_of_the_error() -> None:
    server = Server()
    engine = engine_on(server)
    server.status = 500
    with pytest.raises(NoWorkerError, match="500") as caught:
        engine.infer([job(("positive", "negative"))])
    assert "good" not in caught.value.detail
    with pytest.raises(NoWorkerError, match="no log-probabilities"):
        probabilities_of({"choices": [{"text": "x", "logprobs": None}]})


def test_a_job_that_fails_is_told_by_itself_and_none_is_asked_twice() -> None:
    server = Server()
    engine = engine_on(server)
    jobs = [job(("positive", "so")), job(("positive", "so"), "gone"), job(("positive", "so"))]
    first, failed, last = infer_halving(engine, jobs)
    assert isinstance(failed, KeyError)
    assert not isinstance(first, BaseException)
    assert not isinstance(last, BaseException)
    assert len(server.asked) == 2
    server.status = 500
    assert all(isinstance(outcome, NoWorkerError) for outcome in infer_halving(engine, jobs[::2]))
    assert len(server.asked) == 4


def test_many_labels_leave_room_for_others_in_a_batch(tmp_path: Path) -> None:
    asked = job(tuple(f"the label of number {index}" for index in range(77)))
    budget = PoolConfig(adapter_root=tmp_path, cache_dir=tmp_path, worker_id="w").max_batch_tokens
    cost = engine_on(Server()).cost(asked)
    assert 0 < cost * PARALLEL <= budget


def test_a_long_text_is_cut_and_text_survives_the_round_trip() -> None:
    prompt = TextTokens(2).prompt(Template("Text: {{input}}\nMood:"), {"input": "ä" * 50}, None)
    assert text_of(prompt.head) + text_of(prompt.tail) == "Text: " + "ä" * 7 + "\nMood:"
    assert prompt.cut
    assert not TextTokens(2).prompt(Template("Text: {{input}}\nMood:"), {"input": "ä"}, None).cut


async def test_a_worker_serves_experts_of_a_model_server(tmp_path: Path) -> None:
    server = Server()
    adapters = {"plain": {}, "tuned": {"adapter_name": "tuned"}, "lost": {"adapter_name": "x"}}
    registry = Registry.model_validate({
        "base_models": {"big": {"hf_name": "base", "engine": "openai", "base_url": "http://llm:8080/v1"}},
        "tasks": {
            f"mood/{name}": {
                "base_model_key": "big", "label_set": ["positive", "negative", "neutral"],
                "template_path": "t.json", **more,
            }
            for name, more in adapters.items()
        },
    })  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps({"default": "Text: {{input}}\nMood:"}), encoding="utf-8")
    config = PoolConfig(adapter_root=tmp_path, cache_dir=tmp_path, worker_id="w")
    pool = SingleModelPool(registry, "big", config, lambda *_: engine_on(server))
    pool.preload(None)
    assert list(pool.failures()) == ["mood/lost: x"]
    request = ExpertRequest(task_key="mood/tuned", text="good", language="en")
    answer = await pool.classify(pool.find("mood/tuned", "en"), request)
    assert (answer.result, answer.adapter_name) == ("positive", "tuned")
    assert server.asked[-1]["model"] == "tuned"
    await pool.aclose()


def test_the_registry_must_say_where_the_server_is() -> None:
    with pytest.raises(ValueError, match="base_url"):
        BaseModelSpec(hf_name="base", engine="openai")
