"""Tiny real models with random weights: what holds for them holds for big ones of their kind."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SENTENCES = [
    "card payment declined", "card arrival", "cash withdrawal charge", "positive", "negative", "neutral",
    "PERSON", "EMAIL", "- Anna = PERSON", "- END", "Text: some words of a text", "Label: label",
]  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with control tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<bos>", "<eos>", "<start_of_turn>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES * 4, trainer)
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", eos_token="<eos>")


def model(kind: str, vocab_size: int, width: int = 1) -> Any:
    """A random Gemma 3 with sliding windows of 16 tokens, or a random Llama; `width` times as wide."""
    torch.manual_seed(3)
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 32 * width,
        "intermediate_size": 64 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8 * width,
        "initializer_range": 0.4 / width**0.5,  # strong enough that every token of the context matters
    }
    if kind == "gemma":
        layers = ["sliding_attention", "full_attention", "sliding_attention"]
        return Gemma3ForCausalLM(Gemma3TextConfig(**shape, sliding_window=16, layer_types=layers)).eval()
    return LlamaForCausalLM(LlamaConfig(**shape)).eval()


def save(folder: Path, kind: str = "gemma", width: int = 1) -> Path:
    """A folder that `from_pretrained` takes."""
    own = tokenizer()
    model(kind, len(own), width).save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


def save_adapter(
    folder: Path, base: Path, kind: str = "gemma", seed: int = 1, width: int = 1, **more: Any
) -> Path:
    """A LoRA adapter for the model in `base`, with weights that matter."""
    own = model(kind, len(tokenizer()), width)
    torch.manual_seed(seed)
    more = {"target_modules": ["q_proj", "v_proj"], "r": 2, **more}
    config = LoraConfig(task_type="CAUSAL_LM", **more)
    with warnings.catch_warnings():
        # peft asks transformers for a property that the latter is about to rename.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        wrapped = get_peft_model(own, config)
    for name, weights in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=0.5)
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder
