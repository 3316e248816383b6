"""Adapts the sentence encoder to gating and to the probes: LoRA on all its linear layers.

One encoder serves everything that gating decides, so it is adapted to all of it at once:

- requests: supervised contrastive loss (Khosla et al., 2020) over the requests of a batch, those
  for the same task attracting one another across languages, and cross-entropy of a linear head;
- texts: cross-entropy of one linear head a dataset, so that a probe on the same embedding can
  answer the task.

The heads are thrown away; gating and the probes are fitted on the adapted embedding afterwards.
LoRA: Hu et al., 2021. The adapter is merged when the encoder is converted, so it costs nothing.
"""

from __future__ import annotations

import gzip
import json
import time
from collections import defaultdict
from collections.abc import Iterator
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
from moe_router.training.augment import augmented
from moe_router.training.phrasings import OUT_OF_SCOPE, load_phrasings

TEXT_TASKS = ("umsab", "sib200", "hatecheck", "banking77", "finance_sentiment")


@dataclass(frozen=True, slots=True)
class EncoderRun:
    """Hyperparameters of a run."""

    data: Path
    output: Path
    minutes: float = 45.0
    """stop after this long, the learning rate falling to zero by then"""
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 6e-4
    max_tokens: int = 64
    groups: int = 10
    """requests of so many targets in a batch"""
    per_group: int = 6
    """so many requests of each"""
    texts: int = 40
    """texts in a batch"""
    temperature: float = 0.07
    resume: Path | None = None
    """an encoder_adapter.safetensors to go on from"""
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
        base.load_state_dict(
            {name: torch.from_numpy(np.array(w)) for name, w in weights.items()}, strict=False
        )
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
        width = max(map(len, rows))
        ids = torch.ones(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


def train_encoder(run: EncoderRun) -> None:
    """Trains and writes `encoder_adapter.safetensors` and `.json` into the output folder."""
    torch.manual_seed(run.seed)
    rng = np.random.default_rng(run.seed)
    requests = _requests(run.seed)
    targets = sorted(requests)
    tasks = [t for t in targets if not t.startswith(OUT_OF_SCOPE)]
    texts = {name: rows for name in TEXT_TASKS if (rows := _texts(run.data / name / "train.jsonl.gz"))}
    labels = {name: sorted({label for _, label in rows}) for name, rows in texts.items()}
    model = _Model(run, {"requests": len(tasks) + 1} | {name: len(own) for name, own in labels.items()})
    if run.resume is not None:
        _load(model, run.resume)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=run.learning_rate, weight_decay=0.01)
    streams = {name: _batches(rows, run.texts, rng) for name, rows in texts.items()}
    share = np.sqrt([len(rows) for rows in texts.values()])
    began, step = time.monotonic(), 0
    averages: dict[str, float] = {}
    while (spent := (time.monotonic() - began) / 60 / run.minutes) < 1:
        rate = run.learning_rate * min(1.0, step / 50) * max(0.02, 1 - spent)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if step % 3 != 2:  # requests are the harder part
            name, loss = "requests", _request_loss(model, requests, tasks, run, rng)
        else:
            name = str(rng.choice(list(texts), p=share / share.sum()))
            batch = next(streams[name])
            logits = model.heads[name](model.embed([text for text, _ in batch]) * model.scale)
            gold = torch.tensor([labels[name].index(label) for _, label in batch])
            loss = functional.cross_entropy(logits, gold, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        averages[name] = 0.95 * averages.get(name, loss.item()) + 0.05 * loss.item()
        step += 1
        if step % 50 == 0:
            shown = "  ".join(f"{n} {v:.3f}" for n, v in sorted(averages.items()))
            print(f"step {step}  {spent:5.1%}  {shown}", flush=True)
        if step % 200 == 0:
            _write(model, run, step, averages)
    _write(model, run, step, averages)


def _request_loss(
    model: _Model, requests: dict[str, list[str]], tasks: list[str], run: EncoderRun, rng: np.random.Generator
) -> Tensor:
    chosen = [str(t) for t in rng.choice(list(requests), size=run.groups - 5, replace=False)]
    chosen += [str(t) for t in rng.choice(tasks, size=5, replace=False)]
    chosen = list(dict.fromkeys(chosen))
    drawn = [
        (target, str(requests[target][index]))
        for target in chosen
        for index in rng.choice(
            len(requests[target]), size=min(run.per_group, len(requests[target])), replace=False
        )
    ]
    embeddings = model.embed([text for _, text in drawn])
    group = torch.tensor([chosen.index(target) for target, _ in drawn])
    same = (group[:, None] == group[None, :]).float().fill_diagonal_(0)
    similarity = (embeddings @ embeddings.T / run.temperature).fill_diagonal_(-1e4)
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    contrastive = -((log_share * same).sum(1) / same.sum(1).clamp(min=1)).mean()
    gold = torch.tensor([tasks.index(target) if target in tasks else len(tasks) for target, _ in drawn])
    logits = model.heads["requests"](embeddings * model.scale)
    return contrastive + functional.cross_entropy(logits, gold, label_smoothing=0.05)


def _requests(seed: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    train = [p for p in load_phrasings() if p.split == "train"]
    for phrasing in augmented(train, seed):
        found[phrasing.target].append(phrasing.text)
    return dict(found)


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
    arrays = load_file(path)
    state = {
        f"base_model.model.{name.removesuffix('.weight')}.default.weight": torch.from_numpy(value).float()
        for name, value in arrays.items()
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
        "resumed": run.resume is not None,
        "seed": run.seed,
        "losses": {name: round(value, 4) for name, value in averages.items()},
        "run": {k: v for k, v in asdict(run).items() if k not in ("data", "output", "resume")},
    }
    (run.output / "encoder_adapter.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
