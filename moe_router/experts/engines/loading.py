"""Loads a base model into memory as the registry and the machine say."""

from __future__ import annotations

import importlib.util
import logging
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.base import OutOfMemoryError
from moe_router.registry import BaseModelSpec

logger = logging.getLogger(__name__)

_ONE_AT_A_TIME = threading.Lock()
"""transformers changes torch's globals while it loads: of two loads at once, one is left without weights."""


def load_model(source: Path | str, spec: BaseModelSpec, *, require_4bit: bool = False) -> tuple[Any, Any]:
    """The model in evaluation mode, and its tokenizer.

    On CUDA the weights are bfloat16, or 4-bit (NF4) through bitsandbytes where the registry says so. On a
    CPU they are float32 and so is what is computed, but for the products of `bfloat16_products`. Weights are
    read from safetensors only: a pickle (`pytorch_model.bin`) can run code.

    Raises:
        ModelAssetError: the model cannot be had or loaded, or 4 bits are required and cannot be had.
        OutOfMemoryError: there is no room for it.
    """
    cuda = torch.cuda.is_available()
    options: dict[str, Any] = {
        "dtype": _dtype(spec, cuda),
        "attn_implementation": "sdpa",
        "use_safetensors": True,
    }
    if cuda:
        options["device_map"] = {"": 0} if spec.device_map in (None, "auto") else spec.device_map
    if spec.load_in_4bit:
        quantised = _four_bit(cuda, required=require_4bit)
        if quantised is not None:
            options["quantization_config"] = quantised
    try:
        with _ONE_AT_A_TIME:
            model = AutoModelForCausalLM.from_pretrained(str(source), **options)
        tokenizer = AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError, RuntimeError, ImportError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"the memory does not hold the base model {source}: {error}") from error
        raise ModelAssetError(f"the base model {source} cannot be loaded: {error}{_mend(source)}") from error
    model.train(False)
    return model, tokenizer


def itemsize(spec: BaseModelSpec) -> int:
    """Bytes of a weight in memory at least; 1 where it is loaded in 4 bits."""
    cuda = torch.cuda.is_available()
    return 1 if spec.load_in_4bit and _has_four_bit(cuda) else _dtype(spec, cuda).itemsize


def _has_four_bit(cuda: bool) -> bool:
    return cuda and importlib.util.find_spec("bitsandbytes") is not None


def context_length(model: Any) -> int | None:
    """The most tokens that the model reads at once, as its configuration tells; None where it does not.

    Rotary angles that hang on the longest position of a pass are those of short texts up to some length: it
    reads no further, or a request would change what its neighbours are told.
    """
    config = model.config.get_text_config(decoder=True)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    scaling = getattr(config, "rope_parameters", None) or {}
    if scaling.get("rope_type") == "linear":  # of these the number before is told
        return int(positions * scaling.get("factor", 1))
    if scaling.get("rope_type") == "longrope":
        key = "original_max_position_embeddings"
        return int(scaling.get(key) or getattr(config, key, None) or positions)
    return int(positions)


def _mend(source: Path | str) -> str:
    folder = Path(source)
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        return "; its weights are pickled, which is not read: convert them to safetensors (save_pretrained)"
    return ""


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is short: on a CPU torch has no class of its own for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in told or "allocate memory" in told)


def _dtype(spec: BaseModelSpec, cuda: bool) -> torch.dtype:
    if spec.torch_dtype != "auto":
        found = getattr(torch, spec.torch_dtype)
        assert isinstance(found, torch.dtype)  # noqa: S101  the registry's schema allows no other name
        return found
    return torch.bfloat16 if cuda else torch.float32


def _four_bit(cuda: bool, *, required: bool) -> Any:
    if _has_four_bit(cuda):
        from transformers import BitsAndBytesConfig

        make: Any = BitsAndBytesConfig
        return make(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    reason = "bitsandbytes is not installed" if cuda else "there is no CUDA device"
    if required:
        raise ModelAssetError(f"load_in_4bit cannot be had, since {reason}; MOLE_REQUIRE_4BIT refuses less")
    logger.warning("load_in_4bit is ignored, since %s; the model takes about 4 times the memory", reason)
    return None
