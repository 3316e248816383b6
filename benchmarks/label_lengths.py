"""Which probability of a label is best: what is served, the product of all its tokens, or their mean.

Every validation text is scored once, on the embedded base without an adapter; from the same logits come
(a) what is served, a softmax over the label trie's children wherever labels part, (b) the product of the
probabilities of all of a label's tokens, each over the whole vocabulary, and (c) its length-normalised form,
the mean log-probability of a token. Each with and without the division by what is said of a text that says
nothing:

    python benchmarks/label_lengths.py --data DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import reporting
import torch

from moe_router.assets.base_model import ensure_base_model
from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.experts.engines.cpu_products import prefer_onednn
from moe_router.experts.engines.loading import load_model
from moe_router.experts.engines.mixed import MixedLora
from moe_router.experts.engines.packed import NO_SLOTS, KeyValues, PackedModel, PackedSession
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.prompting import Template, default_template, load_template
from moe_router.experts.scoring import ROOT, Floats, LabelTrie
from moe_router.experts.task_expert import CONTENT_FREE, spoken
from moe_router.registry import BaseModelSpec, TaskSpec, load_registry
from moe_router.training.experts.examples import Row, read_rows
from moe_router.training.metrics import macro_f1

REGISTRY = Path("config/demo/experts_registry.json")
ADAPTERS = Path("moe_router/experts/llms/adapters")
MODEL = "gemma-3-270m"
TASKS = {"banking77": "finance/intent_detection", "sib200": "general/topic_classification"}
VOCABULARY_PART = 8192
"""Rows of the output layer that are multiplied at a time: all 262,144 at once would not stay in a cache."""
WAYS = ("served", "product of all tokens", "mean of all tokens")
PROMPTS: dict[str, Callable[[str, TaskSpec], str]] = {
    "few-shot": lambda key, _: load_template(ADAPTERS / key / "template.json", "default"),
    "zero-shot": lambda _, task: default_template(
        task.description, spoken(task.label_set, task.description or "")
    ),
}


class Scorer:
    """The logits of all tokens of all labels after a text, in one pass."""

    def __init__(self, model: Any, tokens: HfTokens, source: str, labels: Sequence[str]) -> None:
        words = spoken(labels, source)  # as they are served
        self._template = Template(source, {"labels": ", ".join(words)})
        sequences = [tokens.encode(self._template.label_prefix + word, trusted=False) for word in words]
        self.trie = LabelTrie(sequences, tokens.line_end)
        self._tokens = tokens
        self._lm_head = model.get_output_embeddings().weight
        device = self._lm_head.device
        self._packed = PackedModel(model.get_decoder(), model.config, device, MixedLora.of(model))
        self._kept: KeyValues | None = None

    def __call__(self, text: str) -> list[Floats]:
        """(n_labels,) scores of each of the ways."""
        inner = [index for index, node in enumerate(self.trie.nodes) if node.children]
        hidden = self._hidden(text, inner)
        whole = dict(zip(inner, self._whole(hidden).tolist(), strict=True))
        children = {
            index: (self._lm_head[list(self.trie.nodes[index].children)] @ state).double().cpu().numpy()
            for index, state in zip(inner, hidden, strict=True)
        }
        arrived = np.zeros(len(self.trie.nodes))
        for index in inner:  # parents come before their children
            own = list(self.trie.nodes[index].children.values())
            arrived[own] = arrived[index] + children[index] - whole[index]
        leaves = {node.label: at for at, node in enumerate(self.trie.nodes) if node.label is not None}
        product = arrived[[leaves[label] for label in range(len(leaves))]]
        lengths = np.array([len(sequence) for sequence in self.trie.sequences])
        served = self.trie.log_probabilities({branch: children[branch] for branch in self.trie.branches})
        return [served, product, product / lengths]

    def _whole(self, hidden: torch.Tensor) -> torch.Tensor:
        """The softmax's denominators over the whole vocabulary, as logarithms."""
        parts = [torch.logsumexp(hidden @ rows.T, dim=1) for rows in self._lm_head.split(VOCABULARY_PART)]
        return torch.logsumexp(torch.stack(parts), dim=0)

    def _hidden(self, text: str, nodes: Sequence[int]) -> torch.Tensor:
        """Hidden states after the prompt and each of the trie's nodes, the root first."""
        prompt = self._tokens.prompt(self._template, {"input": text, "language": "en"}, None)
        session = PackedSession(self._packed, [self._head(prompt.head)])
        tail = session.add(prompt.tail, session.head_slots[0], len(prompt.head))
        seen = {ROOT: np.concatenate([session.head_slots[0], tail])}
        start = len(prompt.head) + len(prompt.tail) - 1
        for index in nodes:
            if index != ROOT:
                node = self.trie.nodes[index]
                slot = session.add([node.token], seen[node.parent], start + node.depth)
                seen[index] = np.concatenate([seen[node.parent], slot])
        first = len(prompt.tail) - 1
        return session.run(range(first, first + len(nodes)))

    def _head(self, head: tuple[int, ...]) -> KeyValues:
        if self._kept is None:
            session = PackedSession(self._packed)
            session.add(head, NO_SLOTS, 0)
            session.run([len(head) - 1])
            self._kept = session.key_values(len(head))
        return self._kept


def judged(scorer: Scorer, rows: Sequence[Row], labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Accuracy and macro-F1 of each way, as it is and with the prior divided out."""
    priors = np.mean([scorer(text) for text in CONTENT_FREE], axis=0)
    scores = np.array([scorer(row.text) for row in rows])
    gold = [row.label for row in rows]
    found = {}
    for way, name in enumerate(WAYS):
        for divided, taken in (("", 0.0), (", prior divided out", priors[way])):
            said = [labels[i] for i in (scores[:, way] - taken).argmax(axis=1)]
            right = np.mean([a == b for a, b in zip(gold, said, strict=True)])
            found[name + divided] = {
                "accuracy": round(float(right), 4), "macro_f1": round(macro_f1(gold, said), 4)
            }  # fmt: skip
    return found


def sample(path: Path, count: int) -> list[Row]:
    rows = read_rows(path)
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:count]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="the folder of the datasets")
    options.add_argument("--texts", type=int, default=150, help="of each dataset")
    options.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    prefer_onednn()
    registry = load_registry(REGISTRY)
    spec = BaseModelSpec(hf_name=f"embedded:{MODEL}")
    model, tokenizer = load_model(ensure_base_model(spec.hf_name, given.cache.expanduser()), spec)
    tokens = HfTokens(tokenizer, max_text_tokens=512)
    results: dict[str, Any] = {}
    for data, key in TASKS.items():
        task = registry.task(key)
        rows = sample(given.data / data / "validation.jsonl.gz", given.texts)
        for name, prompt in PROMPTS.items():
            scorer = Scorer(model, tokens, prompt(key, task), task.label_set)
            with torch.inference_mode():
                found = judged(scorer, rows, task.label_set)
            lengths = [len(sequence) for sequence in scorer.trie.sequences]
            results[f"{data}, {name}"] = {
                "texts": len(rows), "labels": len(lengths), "tokens_of_a_label": [min(lengths), max(lengths)],
                "ways": found,
            }  # fmt: skip
    report(results)


def shown(figures: dict[str, float]) -> str:
    return f"{figures['accuracy']:.3f} / {figures['macro_f1']:.3f}"


def report(results: dict[str, Any]) -> None:
    lines = [f"| accuracy / macro-F1 | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    for way in next(iter(results.values()))["ways"]:
        own = [result["ways"][way] for result in results.values()]
        lines.append(f"| {way} | {' | '.join(shown(v) for v in own)} |")
    lines += [
        "",
        "; ".join(
            f"{name}: {r['texts']} texts, {r['labels']} labels of {r['tokens_of_a_label'][0]} to "
            f"{r['tokens_of_a_label'][1]} tokens"
            for name, r in results.items()
        )
        + ".",
    ]
    reporting.write("label_lengths", {"results": results}, "\n".join(lines))


if __name__ == "__main__":
    main()
