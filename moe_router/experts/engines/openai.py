"""An engine behind HTTP: any OpenAI-compatible server of completions with log-probabilities.

Servers such as vLLM (with LoRA modules) and llama.cpp's tell the likeliest next tokens. Their tokenizers stay
theirs, so labels are matched as text: of the tokens told, those that a label's rest begins with count for
it; a token that several labels begin with is followed by another request. With k tokens told, a label that
begins with none of them is less likely than the k-th; it counts as impossible, log-probability -inf. Where a
decoder's choices are concerned and none of the tokens told leads to one, the decoder ends. Some servers tell
the space that a token begins with as a sign of their tokenizer's, or not at all; it is put back.

The server tokenises the prompt as one text: unlike with our own engine, a control token spelled out in a
user's text may be read as one, if the server's tokenizer does so.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import numpy as np

from moe_router.errors import DeadlineError, ModelAssetError, NoWorkerError
from moe_router.experts.engines.base import DecodeJob, Job, LabelJob, Outcome, ServerAwayError
from moe_router.experts.engines.text_tokens import CHARS_PER_TOKEN, TextTokens, text_of
from moe_router.experts.engines.told_choices import ToldChoices, with_spaces
from moe_router.experts.scoring import Floats, log_softmax

logger = logging.getLogger(__name__)

TOP = 20
"""Log-probabilities asked for: what vLLM grants by default."""

PARALLEL = 16
"""Requests under way at a time; the server batches them."""

TIMEOUT_S = 60.0
"""For an answer as a whole, and for each step on the way to it."""

MOST_BYTES = 4 << 20
"""Of an answer; one with all that is asked for has some thousand."""

AWAY_ERRORS = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
AWAY = frozenset({429, 502, 503, 504})
"""What servers answer while they load their model or are overrun, and proxies while there is no server."""

HIGHEST = 1e-3
"""Log-probabilities are at most 0, but for a rounding."""

ENDS = frozenset(
    {"</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>"}
)
"""How servers tell the token that ends a text, where they tell it at all and not as an empty one."""

UNSEEN = 1e-9
"""A decoder's choice that none of the tokens told leads to has this probability, if some lead to another."""

NEGLIGIBLE = 1e-3
"""Tokens below this share are not followed further."""


class OpenAIEngine:
    """One served base model; adapters are models of the same server.

    Args:
        base_url: up to and with `/v1`.
        model: the base model's name at the server.
        tokens: turns prompts into characters.
        api_key: sent as a bearer token.
        client: for tests.

    Raises:
        ServerAwayError: the server cannot be reached, or is not up yet.
        ModelAssetError: it does not serve the model.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        tokens: TextTokens,
        api_key: str | None = None,
        client: httpx.Client | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx.Limits(max_connections=PARALLEL)
        self._http = client or httpx.Client(timeout=TIMEOUT_S, headers=headers, limits=limits)
        self._base_url = base_url.rstrip("/")
        self._model = model
        self._tokens = tokens
        self._names: dict[str | None, str] = {None: model}
        self._unled: set[str | None] = set()
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="openai")
        try:
            self._require(model)
        except BaseException:
            self.close()
            raise

    @property
    def tokens(self) -> TextTokens:
        """Prepares jobs."""
        return self._tokens

    def load_adapter(self, name: str, path: str) -> None:
        """Finds the adapter among the server's models; `path` is its name there."""
        self._require(path)
        self._names[name] = path

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter; the server keeps it."""
        self._names.pop(name, None)

    def infer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Asks the server for all jobs at once; it batches them itself."""
        outcomes: list[Outcome] = []
        for outcome in self.infer_each(jobs):
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    def infer_each(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        """As `infer`, but a job that fails has its exception in its place; none is asked twice."""
        return list(self._threads.map(self._answer, jobs))

    def cost(self, job: Job) -> int:
        """About as many tokens as the server reads; a trie is matched here, and not read."""
        return -(-len(job.prompt.tail) // CHARS_PER_TOKEN)

    def memory_bytes(self) -> int:
        """Nothing here: the weights are the server's."""
        return 0

    def load_bytes(self) -> int:
        """Nothing here."""
        return 0

    def close(self) -> None:
        """Closes the connections."""
        self._threads.shutdown(wait=False)
        self._http.close()

    def _answer(self, job: Job) -> Outcome | BaseException:
        try:
            if isinstance(job, DecodeJob):
                return self._decode(job)
            return self._score(job)
        except Exception as error:  # noqa: BLE001  it is the job's own and goes to whoever asked
            return error

    def _score(self, job: LabelJob) -> Floats:
        labels = {index: text_of(tokens) for index, tokens in enumerate(job.trie.sequences)}
        shares = self._shares(job, "", labels)
        with np.errstate(divide="ignore"):  # the logarithm of 0 is meant
            found: Floats = np.log([shares[index] for index in labels])
        return found

    def _shares(self, job: LabelJob, said: str, labels: dict[int, str]) -> dict[int, float]:
        """The probability of each label that begins with what is `said`; they sum to 1.

        Labels share evenly where none was told.
        """
        if len(labels) == 1:
            return dict.fromkeys(labels, 1.0)
        told: Mapping[str, float] = {token: p for token, p in self._next(job, said).items() if p > 0}
        if not said and all(label.startswith(" ") for label in labels.values()):
            told = with_spaces(told)
        leading = {token: own for token in told if (own := _led_to(said, token, labels))}
        if not leading:
            self._tell_unled(job.prompt.adapter)
            return dict.fromkeys(labels, 1 / len(labels))
        shares = dict.fromkeys(labels, 0.0)
        whole = sum(told[token] for token in leading)
        for token, own in leading.items():
            weight = told[token] / whole
            if weight < NEGLIGIBLE:  # not worth a request: its labels share it evenly
                parts = dict.fromkeys(own, 1 / len(own))
            else:
                parts = self._shares(job, said + token, own)
            for index, part in parts.items():
                shares[index] += weight * part
        total = sum(shares.values())
        return {index: share / total for index, share in shares.items()}

    def _decode(self, job: DecodeJob) -> int:
        """About one request for each choice; a choice is between characters."""
        said = ""
        told = ToldChoices(partial(self._next, job))
        decoder = job.decoder()
        decision = next(decoder, None)
        while decision is not None:
            said += text_of(decision.feed)
            shares = np.array(told.shares(said, [chr(choice) for choice in decision.choices]))
            scores = log_softmax(np.log(shares + UNSEEN)) if shares.any() else np.full(len(shares), -np.inf)
            try:
                decision = decoder.send(scores)
            except StopIteration:
                break
        return -(-len(said) // CHARS_PER_TOKEN)

    def _tell_unled(self, adapter: str | None) -> None:
        if adapter not in self._unled:
            self._unled.add(adapter)
            logger.warning(
                "%s: none of the %d tokens that %r told for a text begins a label: all labels are as likely. "
                "Where that is so for most texts, its prompt does not fit the model",
                self._base_url, TOP, self._names[adapter],
            )  # fmt: skip

    def _next(self, job: Job, said: str) -> dict[str, float]:
        """The likeliest next tokens and their probabilities."""
        if not job.wanted():
            raise DeadlineError("Nobody waits for the answer any more.")
        prompt = job.prompt
        body = {
            "model": self._names[prompt.adapter],
            "prompt": text_of(prompt.head) + text_of(prompt.tail) + said,
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": TOP,
        }
        return probabilities_of(self._ask("POST", "/completions", body))

    def _require(self, model: str) -> None:
        try:
            listed = self._ask("GET", "/models", None)
        except ServerAwayError:
            raise
        except NoWorkerError as error:
            raise ModelAssetError(error.detail) from error
        models = listed.get("data")
        if not (isinstance(models, list) and all(isinstance(entry, dict) for entry in models)):
            raise ModelAssetError(f"{self._base_url}/models is no list of models")
        served = [str(entry.get("id")) for entry in models]
        if model not in served:
            raise ModelAssetError(f"{self._base_url} serves no {model!r}; it serves: {', '.join(served)}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            data: Any = json.loads(self._body(method, path, body))
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            # Never the body: it may quote the text.
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            reason = type(error).__name__ + (f" {status}" if status else "")
            away = isinstance(error, AWAY_ERRORS) or status in AWAY
            kind = ServerAwayError if away else NoWorkerError
            raise kind(f"The model server at {self._base_url} gave no answer: {reason}") from error
        return data if isinstance(data, dict) else {}

    def _body(self, method: str, path: str, body: dict[str, Any] | None) -> bytes:
        until = time.monotonic() + (self._http.timeout.read or math.inf)
        whole = bytearray()
        with self._http.stream(method, self._base_url + path, json=body) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                whole += part
                if len(whole) > MOST_BYTES:
                    raise AnswerTooLongError
                if time.monotonic() > until:  # each part came in time, but there is no end of them
                    raise httpx.ReadTimeout("The answer as a whole took too long.")
        return bytes(whole)


class AnswerTooLongError(ValueError):
    """A model server's answer is longer than any that is asked for."""


def _led_to(said: str, token: str, labels: dict[int, str]) -> dict[int, str]:
    """The labels that begin with what is said and the token; or the one that is written with it.

    One that begins another is closed by a line break, which need not be a token by itself: more may follow
    it in the token, and a model may end instead.
    """
    if not token or token in ENDS:
        return {i: label for i, label in labels.items() if label == f"{said}\n"}
    text = said + token
    return {
        i: label
        for i, label in labels.items()
        if label.startswith(text) or (label.endswith("\n") and text.startswith(label))
    }


def probabilities_of(answer: dict[str, Any]) -> dict[str, float]:
    """The next token's probabilities, of either form in which servers tell them.

    Raises:
        NoWorkerError: the answer holds none.
    """
    try:
        told = answer["choices"][0]["logprobs"]
        if told.get("content"):  # as chat completions, and llama.cpp's own server
            pairs = [(entry["token"], entry["logprob"]) for entry in told["content"][0]["top_logprobs"]]
        else:
            pairs = list(told["top_logprobs"][0].items())
        found = {_plain(str(token)): float(logprob) for token, logprob in pairs}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        raise NoWorkerError("The model server's answer has no log-probabilities.") from None
    if not all(logprob <= HIGHEST for logprob in found.values()):  # nor is NaN
        raise NoWorkerError("The model server's answer has numbers that are no log-probabilities.")
    return {token: math.exp(min(logprob, 0.0)) for token, logprob in found.items()}


def _plain(token: str) -> str:
    """A token's text, where a server tells it as its tokenizer spells it: with a sign for the space."""
    return " " + token[1:] if token[:1] in ("▁", "Ġ") else token
