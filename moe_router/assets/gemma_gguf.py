"""Turns a Gemma 3 GGUF file into a folder that transformers loads directly.

transformers can read GGUF itself, but reads the file three times, dequantises it at every start and
cannot save what it loaded. Converted once, the model starts in about a second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_router.errors import ModelAssetError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

    from moe_router.assets.cache import Progress

_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_USER_DEFINED, _CONTROL = 4, 3
"""GGUF token types: matched verbatim before the merges; the latter are special besides."""

_SLIDING_PATTERN = 6
"""Every sixth layer attends to everything, the others to a window; GGUF does not say so."""


def convert(gguf_path: Path, folder: Path, progress: Progress) -> None:
    """Writes `model.safetensors` (matrices float16, norms float32), `config.json` and the tokenizer.

    Raises:
        ModelAssetError: the file is not a Gemma 3 text model.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    progress("reading the GGUF file", 0.1)
    reader = GGUFReader(gguf_path)
    if _field(reader, "general.architecture") != "gemma3":
        raise ModelAssetError(f"{gguf_path} is not a Gemma 3 model")
    tensors: dict[str, Any] = {}
    for index, tensor in enumerate(reader.tensors):
        weights = dequantize(tensor.data, tensor.tensor_type)
        norm = "norm" in tensor.name
        # llama.cpp stores Gemma's norms with the 1 added that transformers adds itself. The quantised
        # values are products of float16 scales: float16 keeps them, bfloat16 would not.
        tensors[_name(tensor.name)] = weights - np.float32(1) if norm else weights.astype(np.float16)
        progress("dequantising the weights", 0.3 + 0.4 * index / len(reader.tensors))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(reader), indent=1), encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)  # save_file makes it private
    progress("building the tokenizer", 0.75)
    _tokenizer(reader).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG, indent=1), encoding="utf-8")


_TOKENIZER_CONFIG = {
    "tokenizer_class": "GemmaTokenizer",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def _name(name: str) -> str:
    if name in _TOP:
        return _TOP[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_LAYER[part]}.{kind}"


def _field(reader: GGUFReader, key: str) -> Any:
    field = reader.fields.get(key)
    if field is None:
        raise ModelAssetError(f"the GGUF file lacks {key}")
    return field.contents()


def _config(reader: GGUFReader) -> dict[str, Any]:
    layers = int(_field(reader, "gemma3.block_count"))
    head_dim = int(_field(reader, "gemma3.attention.key_length"))
    kinds = ("sliding_attention", "full_attention")
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": len(_field(reader, "tokenizer.ggml.tokens")),
        "hidden_size": _field(reader, "gemma3.embedding_length"),
        "intermediate_size": _field(reader, "gemma3.feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": _field(reader, "gemma3.attention.head_count"),
        "num_key_value_heads": _field(reader, "gemma3.attention.head_count_kv"),
        "head_dim": head_dim,
        "query_pre_attn_scalar": head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": _field(reader, "gemma3.context_length"),
        "rms_norm_eps": _field(reader, "gemma3.attention.layer_norm_rms_epsilon"),
        "sliding_window": _field(reader, "gemma3.attention.sliding_window"),
        "layer_types": [kinds[(index + 1) % _SLIDING_PATTERN == 0] for index in range(layers)],
        "rope_parameters": {
            "full_attention": {
                "rope_type": "default",
                "rope_theta": _field(reader, "gemma3.rope.freq_base"),
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
        "dtype": "float16",
    }


def _tokenizer(reader: GGUFReader) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    kinds: Sequence[int] = _field(reader, "tokenizer.ggml.token_type")
    # Runs of spaces are stored as real spaces; the normaliser turns the text's spaces into U+2581.
    tokens = [
        "▁" * len(t) if " " in t and not t.strip() else t for t in _field(reader, "tokenizer.ggml.tokens")
    ]
    vocab = {token: index for index, token in enumerate(tokens)}
    made = Tokenizer(
        BPE(vocab=vocab, merges=merges_of(tokens), fuse_unk=True, unk_token="<unk>", byte_fallback=True)  # noqa: S106
    )
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    verbatim = [
        AddedToken(t, normalized=False, special=False)
        for t, k in zip(tokens, kinds, strict=True)
        if k == _USER_DEFINED
    ]
    special = [
        AddedToken(t, normalized=False, special=True)
        for t, k in zip(tokens, kinds, strict=True)
        if k == _CONTROL
    ]
    made.add_special_tokens(special)
    made.add_tokens(verbatim)
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    return made


def merges_of(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """The BPE merges of a vocabulary in the order in which they were learnt.

    GGUF keeps no merges for Gemma; a token's place in the vocabulary is the rank of the merges that make it.
    """
    rank = {token: index for index, token in enumerate(tokens)}
    found: list[tuple[int, int, int, str, str]] = []
    for index, token in enumerate(tokens):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in rank and right in rank:
                found.append((index, -len(left), -len(right), left, right))
    found.sort(key=lambda merge: merge[:3])
    return [(left, right) for *_, left, right in found]
