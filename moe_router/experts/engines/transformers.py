"""The engine on Hugging Face transformers and peft, on CPU and CUDA."""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, product
from traceback import clear_frames
from typing import Any

import numpy as np
import torch

from moe_router.errors import ModelAssetError, MoleError
from moe_router.experts.engines import adapters
from moe_router.experts.engines.base import (
    Decision,
    DecodeJob,
    Decoder,
    Job,
    LabelJob,
    Outcome,
    OutOfMemoryError,
    Prompt,
)
from moe_router.experts.engines.bfloat16_products import (
    keeps_rows_apart,
    round_adapter,
    use_bfloat16,
)
from moe_router.experts.engines.blocks import use_blocks, use_one_mask
from moe_router.experts.engines.cpu_products import computes_bfloat16
from moe_router.experts.engines.last_layer import LastLayer
from moe_router.experts.engines.lm_head import LmHead
from moe_router.experts.engines.loading import is_out_of_memory
from moe_router.experts.engines.mixed import MixedLora, is_plain
from moe_router.experts.engines.packed import KeyValues, PackedModel, PackedSession, Slots
from moe_router.experts.engines.self_check import check_packing, keeps_requests_apart
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.frames import without_frames
from moe_router.experts.scoring import ROOT, Floats, log_softmax

logger = logging.getLogger(__name__)

INLINE_BRANCHES = 16
"""A trie whose branches need no more tokens than this is scored in one pass together with its prompt.

Of bigger ones a second pass reads what the first leaves possible, unless `LabelJob.exact` forbids that. It
reads the weights once more, which costs as much as some dozens of tokens."""

NEGLIGIBLE = 5e-4
"""The least likely branches of a big trie, up to this probability in all, are not looked into.

Their labels share what reaches them, so that no label's probability is off by more; what is made of it
afterwards must not magnify what is small (`LabelJob.exact`)."""

MAX_HEADS = 64
"""Cached template heads per model; the one that was not used for longest goes."""


class TransformersEngine:
    """One base model and its unmerged adapters.

    One batch runs at a time: the adapter in use is a state of the model.

    Args:
        model: an `AutoModelForCausalLM` in evaluation mode.
        tokens: its tokenizer.
        loaded: names of adapters that the model has already.

    Raises:
        ModelAssetError: the model's architecture does not honour explicit attention masks.
        OutOfMemoryError: there is no room for a pass.
    """

    def __init__(self, model: Any, tokens: HfTokens, loaded: Collection[str] = ()) -> None:
        self._model = model
        self._tokens = tokens
        self._lock = threading.Lock()
        self._heads: OrderedDict[tuple[str | None, tuple[int, ...]], KeyValues] = OrderedDict()
        self._adapters: set[str] = set(loaded)
        device = model.get_input_embeddings().weight.device
        self._mixed = MixedLora.of(model)
        self._odd: set[str] = set()
        self._in_bfloat16 = False
        self._as_loaded = 0
        self._attach()
        self._lm_head = LmHead(model)
        self._packed = self._fastest(model, device)

    def _fastest(self, model: Any, device: torch.device) -> PackedModel:
        """With all that spares work, or with what of it the model is served right."""
        last_layer = LastLayer.of(model.get_decoder(), self._mixed)
        ways = dict.fromkeys(product((True, False), (last_layer, None)))  # two where there is no such layer
        *sparing, _ = ways  # the last spares nothing, and raises
        for in_blocks, part in sparing:
            if in_blocks and not use_blocks(model):
                continue
            try:
                return self._checked(model, device, in_blocks=in_blocks, last_layer=part)
            except Exception as error:  # whatever a model makes of what it does not know
                if in_blocks:
                    use_one_mask(model)
                if isinstance(error, OutOfMemoryError):
                    raise
                told = (type(model).__name__, in_blocks, part is not None, error)
                logger.info("%s is not right with blocks=%s, last_layer=%s: %r", *told)
        try:
            return self._checked(model, device, in_blocks=False, last_layer=None)
        except (MoleError, OutOfMemoryError):
            raise
        except Exception as error:
            kind = type(model).__name__
            raise ModelAssetError(f"{kind} cannot be served: a packed pass of it fails: {error!r}") from error

    def _checked(
        self, model: Any, device: torch.device, *, in_blocks: bool, last_layer: LastLayer | None
    ) -> PackedModel:
        config = model.config.get_text_config(decoder=True)  # a model that reads images, too, has several
        packed = PackedModel(
            model.get_decoder(), config, device, self._mixed, in_blocks=in_blocks, last_layer=last_layer
        )
        with _translated("the model's first pass"):
            check_packing(model, packed, self._tokens, self._lm_head)
        return packed

    def use_bfloat16(self) -> bool:
        """Lets linear layers multiply in bfloat16, before any adapter is loaded; whether they do.

        They do where that is the faster way, and where a request's numbers still hang on nothing but itself.

        Raises:
            ModelAssetError: they do not, which showed too late: load the model anew.
            OutOfMemoryError: there is no room for a pass.
        """
        decoder = self._model.get_decoder()
        if not (computes_bfloat16() and self._packed.in_blocks and self._keeps_rows_apart(decoder)):
            return False
        self._as_loaded = self.memory_bytes()
        self._in_bfloat16 = use_bfloat16(decoder)
        with _translated("the model's first pass"):
            if self._in_bfloat16 and not keeps_requests_apart(self._packed, self._tokens):
                raise ModelAssetError(f"{type(self._model).__name__} mixes requests in bfloat16")
        return self._in_bfloat16

    def _keeps_rows_apart(self, decoder: Any) -> bool:
        try:
            return keeps_rows_apart(decoder, self._model.config.get_text_config(decoder=True))
        except Exception as error:  # noqa: BLE001  a configuration of its own kind, or no room to find out
            logger.info("%s may not multiply in bfloat16: %r", type(self._model).__name__, error)
            return False

    @property
    def tokens(self) -> HfTokens:
        """Prepares jobs, on the CPU."""
        return self._tokens

    def load_adapter(self, name: str, path: str) -> None:
        """Loads a LoRA adapter beside the others, unmerged."""
        with self._lock:
            if name in self._adapters:
                raise ModelAssetError(f"adapter {name!r}: there is one of this name; unload it first")
            adapters.load(self._model, name, path)
            self._adapters.add(name)
            self._attach()
            try:
                with _translated(f"the adapter {name!r}"):
                    self._settle(name)
            except Exception:
                self._take_away(name)
                raise

    def _attach(self) -> None:
        self._mixed.attach(adapters.layers_of(self._model) if self._adapters else [])

    def unload_adapter(self, name: str) -> None:
        """Takes an adapter and its cached heads away."""
        with self._lock:
            self._take_away(name)

    def _settle(self, name: str) -> None:
        layers = adapters.layers_of(self._model)
        if not is_plain(layers, name, self._model.get_output_embeddings()):
            self._odd.add(name)
        elif self._in_bfloat16:
            round_adapter(layers, name)

    def _take_away(self, name: str) -> None:
        self._adapters.discard(name)
        self._odd.discard(name)
        adapters.remove(self._model, name)
        for key in [key for key in self._heads if key[0] == name]:
            del self._heads[key]

    def infer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Runs a batch, whatever the adapters in it; those that are more than plain LoRA by themselves."""
        with self._lock:
            try:
                return self._infer(jobs)
            except OutOfMemoryError:
                if len(jobs) > 1 or not self._drop_heads_but(jobs[0].prompt):
                    raise
            return self._infer(jobs)

    def _infer(self, jobs: Sequence[Job]) -> list[Outcome]:
        outcomes: list[Outcome] = [0] * len(jobs)
        with torch.inference_mode(), _translated("this batch"):
            for group in self._groups(jobs):
                self._score([(i, job) for i, job in group if isinstance(job, LabelJob)], outcomes)
                self._decode([(i, job) for i, job in group if isinstance(job, DecodeJob)], outcomes)
        return outcomes

    def _drop_heads_but(self, prompt: Prompt) -> bool:
        """Lets the heads go that this prompt has no use for; whether there were any."""
        others = set(self._heads) - {(prompt.adapter, prompt.head)}
        for key in others:
            del self._heads[key]
        torch.cuda.empty_cache()
        return bool(others)

    def cost(self, job: Job) -> int:
        """Tokens of the prompt's tail and of what is read after it."""
        return job.cost

    def _groups(self, jobs: Sequence[Job]) -> Iterator[list[tuple[int, Job]]]:
        """Jobs that may share a pass, those of an adapter side by side; sets the adapters for them."""
        ordered = sorted(enumerate(jobs), key=lambda item: item[1].prompt.adapter or "")
        if unknown := {job.prompt.adapter for job in jobs} - self._adapters - {None}:
            raise ModelAssetError(f"the adapter {unknown.pop()!r} is not loaded")
        if plain := [item for item in ordered if item[1].prompt.adapter not in self._odd]:
            yield plain
        for name in sorted({job.prompt.adapter or "" for job in jobs} & self._odd):
            adapters.activate(self._model, name, self._adapters)
            own = [item for item in ordered if item[1].prompt.adapter == name]
            try:
                # What peft adds may round otherwise in a pass of another length.
                yield from ([item] for item in own) if self._in_bfloat16 else [own]
            finally:
                adapters.activate(self._model, None, self._adapters)

    def memory_bytes(self) -> int:
        """The weights, with those of the adapters, and the cached heads."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        tensors += [tensor for head in self._heads.values() for pair in head for tensor in pair]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def load_bytes(self) -> int:
        """The same of the float32 model that one of bfloat16 products was made of."""
        return max(self._as_loaded, self.memory_bytes())

    def close(self) -> None:
        """Drops the model and its caches."""
        with self._lock:
            self._heads.clear()
            self._model = None
            self._packed = self._lm_head = None  # type: ignore[assignment]  # nothing may use a closed engine
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _open(self, prompts: Sequence[Prompt]) -> tuple[PackedSession, list[Slots]]:
        """A session that holds the prompts' heads, and queues their tails."""
        kept = {
            (prompt.adapter, prompt.head): self._head(prompt.adapter, prompt.head)
            for prompt in prompts
            if prompt.head
        }
        session = PackedSession(self._packed, kept.values())
        slots = dict(zip(kept, session.head_slots, strict=True))
        none = np.empty(0, dtype=np.int64)
        seen = []
        for row, prompt in enumerate(prompts):
            head = slots.get((prompt.adapter, prompt.head), none)
            tail = session.add(prompt.tail, head, len(prompt.head), self._run(prompt), block=row)
            seen.append(np.concatenate([head, tail]))
        return session, seen

    def _run(self, prompt: Prompt) -> str | None:
        """The adapter that the pass adds; an odd one is peft's to add."""
        return None if prompt.adapter in self._odd else prompt.adapter

    def _head(self, adapter: str | None, head: tuple[int, ...]) -> KeyValues:
        key = (adapter, head)
        if key not in self._heads:
            session = PackedSession(self._packed)
            session.add(head, np.empty(0, dtype=np.int64), 0, None if adapter in self._odd else adapter)
            session.run([len(head) - 1])
            self._heads[key] = session.key_values(len(head))
            if len(self._heads) > MAX_HEADS:
                self._heads.popitem(last=False)
        self._heads.move_to_end(key)
        return self._heads[key]

    def _score(self, jobs: Sequence[tuple[int, LabelJob]], outcomes: list[Outcome]) -> None:
        if not jobs:
            return
        session, seen = self._open([job.prompt for _, job in jobs])
        at_root, offset = [], 0
        for _, job in jobs:
            offset += len(job.prompt.tail)
            at_root.append(offset - 1)
        logits: list[dict[int, Floats]] = [{} for _ in jobs]
        wanted = [(row, ROOT, at_root[row]) for row in range(len(jobs))]
        sizes = [len(job.trie.context) for _, job in jobs]
        late = [row for row, (_, job) in enumerate(jobs) if not job.exact and sizes[row] > INLINE_BRANCHES]
        inline = [row for row in range(len(jobs)) if row not in late]
        for row in inline:
            wanted += self._grow(session, jobs[row][1], seen[row], row, jobs[row][1].trie.context, offset)
            offset += len(jobs[row][1].trie.context)
        self._read(session, [job for _, job in jobs], wanted, logits)
        self._score_deep(session, jobs, seen, late, logits)
        for (index, job), known in zip(jobs, logits, strict=True):
            outcomes[index] = job.trie.log_probabilities(known)

    def _score_deep(
        self,
        session: PackedSession,
        jobs: Sequence[tuple[int, LabelJob]],
        seen: Sequence[Slots],
        rows: Sequence[int],
        logits: list[dict[int, Floats]],
    ) -> None:
        """A second pass for big tries, over the branches that their first tokens leave possible."""
        wanted: list[tuple[int, int, int]] = []
        offset = 0
        for row in rows:
            job, trie = jobs[row][1], jobs[row][1].trie
            nodes = trie.context_of(trie.worth_reading(logits[row], NEGLIGIBLE))
            wanted += self._grow(session, job, seen[row], row, nodes, offset)
            offset += len(nodes)
        if wanted:
            self._read(session, [job for _, job in jobs], wanted, logits)

    def _grow(
        self, session: PackedSession, job: LabelJob, seen: Slots, row: int, nodes: Sequence[int], offset: int
    ) -> list[tuple[int, int, int]]:
        """Queues a trie's nodes; returns (row, branch, index in the pass) of those at which labels part."""
        contexts = {ROOT: seen}
        branches = set(job.trie.branches)
        start = len(job.prompt.head) + len(job.prompt.tail) - 1
        found = []
        for index, at in enumerate(nodes):
            node = job.trie.nodes[at]
            context = contexts[node.parent]
            at_depth = start + node.depth
            # Never with the prompt, which may stand beside it or not.
            slot = session.add([node.token], context, at_depth, self._run(job.prompt), block=~row)
            contexts[at] = np.concatenate([context, slot])
            if at in branches:
                found.append((row, at, offset + index))
        return found

    def _read(
        self,
        session: PackedSession,
        jobs: Sequence[LabelJob],
        wanted: Sequence[tuple[int, int, int]],
        logits: list[dict[int, Floats]],
    ) -> None:
        choices = [tuple(jobs[row].trie.nodes[branch].children) for row, branch, _ in wanted]
        rows = self._lm_head.logits(session.run([at for *_, at in wanted]), choices)
        for (row, branch, _), values in zip(wanted, rows, strict=True):
            logits[row][branch] = values

    def _decode(self, numbered: Sequence[tuple[int, DecodeJob]], outcomes: list[Outcome]) -> None:
        if not numbered:
            return
        jobs = [job for _, job in numbered]
        session, seen = self._open([job.prompt for job in jobs])
        last = list(session.run(_ends([job.prompt.tail for job in jobs])))
        decoders: list[Decoder] = [job.decoder() for job in jobs]
        places = [len(job.prompt.head) + len(job.prompt.tail) for job in jobs]
        next_asked: Mapping[int, Decision | None]
        next_asked = {row: next(decoder, None) for row, decoder in enumerate(decoders)}
        while asked := self._within_context(next_asked, decoders, places):
            fed = [row for row, decision in asked.items() if decision.feed]
            for row in fed:
                slots = session.add(
                    asked[row].feed, seen[row], places[row], self._run(jobs[row].prompt), block=row
                )
                seen[row] = np.concatenate([seen[row], slots])
                places[row] += len(slots)
            if fed:
                read = session.run(_ends([asked[row].feed for row in fed]))
                for row, hidden in zip(fed, read, strict=True):
                    last[row] = hidden
            rows = list(asked)
            scores = self._lm_head.logits(
                torch.stack([last[row] for row in rows]), [asked[row].choices for row in rows]
            )
            answers = zip(rows, scores, strict=True)
            next_asked = {row: _send(decoders[row], log_softmax(s)) for row, s in answers}
        for (index, job), place in zip(numbered, places, strict=True):
            fed_tokens = place - len(job.prompt.head) - len(job.prompt.tail)
            outcomes[index] = max(fed_tokens - job.most_fed, 0)

    def _within_context(
        self, asked: Mapping[int, Decision | None], decoders: Sequence[Decoder], places: Sequence[int]
    ) -> dict[int, Decision]:
        """What is left to decide; where feeding would pass what the model reads, a decoder is told to end."""
        context = self._tokens.context or math.inf
        within: dict[int, Decision] = {}
        for row, decision in asked.items():
            while decision is not None and places[row] + len(decision.feed) > context:
                decision = _send(decoders[row], np.full(len(decision.choices), -np.inf))
            if decision is not None:
                within[row] = decision
        return within


def _ends(chains: Sequence[Sequence[int]]) -> list[int]:
    """Places of the last tokens of chains that stand one after another."""
    return [end - 1 for end in accumulate(map(len, chains))]


def _send(decoder: Decoder, log_probabilities: Floats) -> Any:
    try:
        return decoder.send(log_probabilities)
    except StopIteration:
        return None


@contextmanager
def _translated(work: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        clear_frames(error.__traceback__)  # they hold the pass's tensors, which are not free before
        without_frames(error)
        torch.cuda.empty_cache()
        raise OutOfMemoryError(f"The device's memory does not hold {work}.") from None
