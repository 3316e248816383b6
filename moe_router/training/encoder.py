"""Adapts the sentence encoder to gating and to the probes: LoRA on all its linear layers.

One encoder serves everything that gating decides, so it is adapted to all of it at once:

- requests: cross-entropy of a linear head, and supervised contrastive loss (Khosla et al., 2020)
  over the requests of a batch: those for the same task attract one another across languages, those
  that no task serves attract nothing and are pushed off by all;
- texts: cross-entropy of one linear head a dataset, so that a probe on the same embedding can
  answer the task.

Every draw of a request is varied anew (`augment.varied`). Linear layers compute in bfloat16 where
that is faster on this CPU. The heads are thrown away; gating and the probes are fitted
on the adapted embedding afterwards. LoRA: Hu et al., 2021. The adapter is merged when the encoder is
converted, so it costs nothing.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import XLMRobertaConfig, XLMRobertaModel

from moe_router.assets import e5s1
from moe_router.assets.encoder import embedded_files
from moe_router.errors import ModelAssetError
from moe_router.experts.engines.cpu_products import computes_bfloat16
from moe_router.training.augment import varied
from moe_router.training.phrasings import OUT_OF_SCOPE, Phrasing, load_phrasings

PART = 16
"""Texts that go through the encoder at once."""
SAVE_EVERY = 200
"""Steps between two writings of the adapter."""
TEXT_TASKS = ("umsab", "sib200", "hatecheck", "banking77", "finance_sentiment")


@dataclass(frozen=True, slots=True)
class EncoderRun:
    """Hyperparameters of a run."""

    data: Path
    output: Path
    steps: int = 2_400
    """the learning rate rises over the first 50 and then falls to zero"""
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 8e-4
    max_tokens: int = 64
    requests: int = 64
    """requests in a batch"""
    texts: int = 32
    """texts in a batch"""
    texts_every: int = 4
    """every so-manieth step is on texts, the others on requests"""
    out_of_scope: float = 0.22
    """share of the requests that no task serves; of the others every target has as many"""
    contrastive: float = 0.5
    """weight of the contrastive loss beside the cross-entropy"""
    temperature: float = 0.07
    start: Path | None = None
    """an adapter to go on from, for instance where there is new data; its description is kept within"""
    without: frozenset[str] = frozenset()
    """tasks whose requests are left out wholly, to judge how a new task fares"""
    seed: int = 0


class _Model(nn.Module):
    def __init__(self, run: EncoderRun, classes: dict[str, int]) -> None:
        super().__init__()
        packed, tokenizer = embedded_files()
        weights, shape = e5s1.read(packed)
        config = XLMRobertaConfig(
            vocab_size=weights["embeddings.word_embeddings.weight"].shape[0], hidden_size=384,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, intermediate_size=1536,
            max_position_embeddings=514, type_vocab_size=2, layer_norm_eps=shape.epsilon, pad_token_id=1,
            # Drawing dropout masks costs a third of a step on a CPU; the low rank regularises enough.
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        base = XLMRobertaModel(config, add_pooling_layer=False)
        # On a CPU the fused attention's backward pass takes as long as all else together.
        base.set_attn_implementation("eager")
        base.load_state_dict(
            {name: torch.from_numpy(np.array(w)) for name, w in weights.items()}, strict=False
        )
        self._half = computes_bfloat16()
        for module in base.modules() if self._half else ():  # autocast would convert them for every part anew
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)
        targets = ["query", "key", "value", "dense"]
        lora = LoraConfig(r=run.rank, lora_alpha=run.alpha, target_modules=targets)
        self.encoder = get_peft_model(base, lora)
        self.heads = nn.ModuleDict({name: nn.Linear(384, count) for name, count in classes.items()})
        self.scale = 12.0  # unit vectors make small logits
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(run.max_tokens)

    def embed(self, texts: list[str]) -> Tensor:
        """Unit vectors (len(texts), 384)."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(["query: " + t for t in texts])]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        # In parts of like length, so that little is spent on padding.
        parts = [order[at : at + PART] for at in range(0, len(order), PART)]
        vectors = torch.cat([self._part([rows[index] for index in part]) for part in parts])
        return vectors[torch.tensor(order).argsort()]

    def _part(self, rows: list[list[int]]) -> Tensor:
        width = max(map(len, rows))
        ids = torch.ones(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weight = mask.unsqueeze(-1).float()
        return functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


class _Requests:
    """Draws training requests: every target as often, and some that no task serves."""

    def __init__(self, run: EncoderRun, rng: np.random.Generator) -> None:
        self._rng = rng
        self._share = run.out_of_scope
        self._by_target: dict[str, list[Phrasing]] = defaultdict(list)
        self._out: list[Phrasing] = []
        for phrasing in load_phrasings():
            if phrasing.split == "train" and phrasing.target not in run.without:
                if phrasing.target.startswith(OUT_OF_SCOPE):
                    self._out.append(phrasing)
                else:
                    self._by_target[phrasing.target].append(phrasing)
        self.targets = sorted(self._by_target)

    def draw(self, count: int) -> tuple[list[str], Tensor]:
        """Texts and the index of each one's target; len(targets) where no task serves it."""
        texts, classes = [], []
        for _ in range(count):
            out = self._rng.random() < self._share
            index = len(self.targets) if out else int(self._rng.integers(len(self.targets)))
            pool = self._out if out else self._by_target[self.targets[index]]
            texts.append(varied(pool[int(self._rng.integers(len(pool)))], self._rng))
            classes.append(index)
        return texts, torch.tensor(classes)


def train_encoder(run: EncoderRun, report: Callable[[str, float], None]) -> None:
    """Trains and writes `encoder_adapter.safetensors` and `.json` into the output folder."""
    torch.manual_seed(run.seed)
    rng = np.random.default_rng(run.seed)
    requests = _Requests(run, rng)
    texts = {name: rows for name in TEXT_TASKS if (rows := _texts(run.data / name / "train.jsonl.gz"))}
    labels = {name: sorted({label for _, label in rows}) for name, rows in texts.items()}
    classes = {"requests": len(requests.targets) + 1} | {name: len(own) for name, own in labels.items()}
    model = _Model(run, classes)
    if run.start is not None:
        _load(model, run.start)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=run.learning_rate, weight_decay=0.01)
    streams = {name: _batches(rows, run.texts, rng) for name, rows in texts.items()}
    share = np.sqrt([len(rows) for rows in texts.values()])
    averages: dict[str, float] = {}
    for step in range(run.steps):
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate * min(1.0, (step + 1) / 50) * (1 - step / run.steps)
        if texts and step % run.texts_every == run.texts_every - 1:
            name = str(rng.choice(list(texts), p=share / share.sum()))
            batch = next(streams[name])
            logits = model.heads[name](model.embed([text for text, _ in batch]) * model.scale)
            gold = torch.tensor([labels[name].index(label) for _, label in batch])
            loss = functional.cross_entropy(logits, gold, label_smoothing=0.05)
        else:
            name, loss = "requests", _request_loss(model, requests, run)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        averages[name] = 0.95 * averages.get(name, loss.item()) + 0.05 * loss.item()
        report(f"adapting the encoder, loss {averages.get('requests', 0.0):.3f}", (step + 1) / run.steps)
        if (step + 1) % SAVE_EVERY == 0:
            _write(model, run, step + 1, averages)
    _write(model, run, run.steps, averages)


def _request_loss(model: _Model, requests: _Requests, run: EncoderRun) -> Tensor:
    texts, target = requests.draw(run.requests)
    embeddings = model.embed(texts)
    in_scope = target < len(requests.targets)
    same = ((target[:, None] == target[None, :]) & in_scope[:, None]).float().fill_diagonal_(0)
    similarity = (embeddings @ embeddings.T / run.temperature).fill_diagonal_(-1e4)
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    attracted = same.sum(1) > 0
    contrastive = -((log_share * same).sum(1) / same.sum(1).clamp(min=1))[attracted].mean()
    logits = model.heads["requests"](embeddings * model.scale)
    return functional.cross_entropy(logits, target, label_smoothing=0.05) + run.contrastive * contrastive


def _texts(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [(row["text"], row["label"]) for row in map(json.loads, lines)]


def _batches(
    rows: list[tuple[str, str]], size: int, rng: np.random.Generator
) -> Iterator[list[tuple[str, str]]]:
    """Endless batches of texts of like length, in random order."""
    while True:
        order = rng.permutation(len(rows))
        for block in np.array_split(order, max(1, len(order) // (size * 20))):
            by_length = sorted(block, key=lambda index: len(rows[index][0]))
            batches = [by_length[at : at + size] for at in range(0, len(by_length), size)]
            for index in rng.permutation(len(batches)):
                yield [rows[i] for i in batches[index]]


def _load(model: _Model, path: Path) -> None:
    """Takes over the adapter of an earlier run."""
    state = {
        f"base_model.model.{name.removesuffix('.weight')}.default.weight": torch.from_numpy(value).float()
        for name, value in load_file(path).items()
    }
    unknown = model.encoder.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise ModelAssetError(f"{path} is no adapter of this encoder: it has {unknown[0]}")


def _write(model: _Model, run: EncoderRun, step: int, averages: dict[str, float]) -> None:
    state = model.encoder.state_dict()
    arrays = {
        name.removeprefix("base_model.model.").replace(".default", ""): value.half().numpy()
        for name, value in state.items()
        if "lora_" in name
    }
    run.output.mkdir(parents=True, exist_ok=True)
    path = run.output / "encoder_adapter.safetensors"
    save_file(arrays, path)
    path.chmod(0o644)  # safetensors makes it private
    meta = {
        "base": "intfloat/multilingual-e5-small",
        "rank": run.rank,
        "scaling": run.alpha / run.rank,
        "steps": step,
        "start": None if run.start is None else json.loads(run.start.with_suffix(".json").read_text("utf-8")),
        "seed": run.seed,
        "losses": {name: round(value, 4) for name, value in averages.items()},
        "without": sorted(run.without),
        "run": {k: v for k, v in asdict(run).items() if k not in ("data", "output", "start", "without")},
    }
    (run.output / "encoder_adapter.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
