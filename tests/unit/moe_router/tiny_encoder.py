"""Tiny real sentence encoders with random weights: what holds for them holds for big ones of their kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

HIDDEN = 32
POSITIONS = 130
"""Rows of the position table: 128 tokens and the two that XLM-R leaves unused."""

TEXTS = [
    "Der Umsatz stieg im dritten Quartal um zwölf Prozent.",
    "card",
    "J'adore ce festival ! " * 6,
    "我的卡还没有到。",
    "What does this banking customer want?",
]


def tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer that frames texts as XLM-R does."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


def model(kind: str = "xlm-roberta", seed: int = 0) -> Any:
    """A random encoder of two layers, in float32."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": tokenizer().get_vocab_size(),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1,
        "initializer_range": 0.3,  # strong enough that every token of the context matters
    }
    if kind == "bert":
        return BertModel(BertConfig(**shape, pad_token_id=1), add_pooling_layer=False).eval()
    return XLMRobertaModel(XLMRobertaConfig(**shape, pad_token_id=1), add_pooling_layer=False).eval()


def save(folder: Path, kind: str = "xlm-roberta", seed: int = 0) -> Path:
    """A checkpoint that `ensure_encoder` takes."""
    model(kind, seed).save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def embed(own: Any, texts: list[str]) -> NDArray[np.float32]:
    """What transformers makes of each text alone: mean of the tokens' vectors, length 1."""
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer().encode(text).ids[: POSITIONS - 2]])
        with torch.no_grad():
            tokens = own(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(tokens.mean(0), dim=0).numpy())
    return np.stack(rows)
