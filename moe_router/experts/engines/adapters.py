"""LoRA adapters beside one another on one base model, never merged into it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.base import OutOfMemoryError
from moe_router.experts.engines.bfloat16_products import Bfloat16Linear
from moe_router.experts.engines.loading import is_out_of_memory

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How the names of such beginnings begin in `init_lora_weights`."""


def load(model: Any, name: str, path: str) -> None:
    """Adds an adapter to the model under a name; a failure leaves the model as it was.

    Args:
        model: the base model; layers are replaced in place.
        name: the adapter's name, free of dots.
        path: its folder, with `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        ModelAssetError: names the adapter, the file as this process sees it, and the reason.
        OutOfMemoryError: there is no room for it.
    """
    folder = Path(path).absolute()
    if "." in name:
        raise ModelAssetError(f"adapter {name!r}: its name must not contain a dot")
    config, weights = read(name, folder)
    try:
        _inject(model, name, config, weights)
    except Exception as error:
        remove(model, name)
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"adapter {name!r}: the device's memory does not hold it") from error
        raise ModelAssetError(f"adapter {name!r}: {folder} does not fit the base model: {error}") from error
    model.eval()


def read(name: str, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """An adapter's `LoraConfig`, and its tensors by name.

    Raises:
        ModelAssetError: it cannot be read, is no LoRA adapter, or brings base weights of its own.
    """
    from peft import PeftConfig

    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise ModelAssetError(f"adapter {name!r}: no such file: {folder / file}")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        weights = load_file(folder / WEIGHTS)
    except Exception as error:
        raise ModelAssetError(f"adapter {name!r}: {folder} cannot be read: {error}") from error
    kind = str(config.peft_type).rpartition(".")[2]
    if kind != "LORA":
        raise ModelAssetError(f"adapter {name!r}: {folder / CONFIG}: peft_type {kind} is not LORA")
    if reason := _touches_base(config, weights) or _needs_more(config):
        raise ModelAssetError(f"adapter {name!r}: {folder}: {reason}")
    return config, weights


def _touches_base(config: Any, weights: Collection[str]) -> str | None:
    """What of the adapter would be put in place of the base's own weights, which all experts share.

    peft changes them where an adapter began at a decomposition of theirs, which it subtracts from them.
    """
    began = str(config.init_lora_weights).lower()
    if began.startswith(CHANGES_BASE) or getattr(config, "kasa_config", None):
        return (
            f"it began by changing base weights (init_lora_weights {began!r}); save it converted, with "
            "path_initial_model_for_weight_conversion"
        )
    if config.layer_replication:
        return "layer_replication copies layers of the base; train it without"
    if config.modules_to_save:
        return f"modules_to_save {sorted(config.modules_to_save)} replaces base weights; train it without"
    if config.bias != "none":
        return f"bias {config.bias!r} replaces the base's biases; train it with bias='none'"
    if foreign := sorted(key for key in weights if "lora_" not in key):
        return (
            f"{WEIGHTS} holds base weights, such as {foreign[0]!r}; "
            "save it with save_embedding_layers=False and nothing trained but LoRA"
        )
    return None


def _needs_more(config: Any) -> str | None:
    """What it needs to know of each pass besides its tokens."""
    if getattr(config, "alora_invocation_tokens", None):
        return "alora_invocation_tokens has it act from some token on, which is not supported"
    return None


def _inject(model: Any, name: str, config: Any, weights: dict[str, torch.Tensor]) -> None:
    from peft import inject_adapter_in_model, set_peft_model_state_dict

    with warnings.catch_warnings():
        # Several adapters on one model are what is wanted here.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, model, adapter_name=name)
    for layer in layers_of(model):
        if isinstance(layer.get_base_layer(), Bfloat16Linear):  # whose dtype peft takes for the adapter's
            for own in (getattr(layer, part) for part in layer.adapter_layer_names):
                if isinstance(own, torch.nn.ModuleDict) and name in own:
                    own[name].float()
    result: Any = set_peft_model_state_dict(model, weights, adapter_name=name)
    unknown = result.unexpected_keys
    if unknown:
        raise ValueError(f"{len(unknown)} tensors fit nothing in the model, such as {unknown[0]!r}")
    own = re.compile(rf"\.lora_\w+\.{re.escape(name)}(\.|$)")
    # What is not in the file keeps the numbers of a fresh adapter, which answers as the base.
    if missing := [key for key in result.missing_keys if own.search(key)]:
        count = sum(1 for key in model.state_dict() if own.search(key))
        raise ValueError(
            f"{WEIGHTS} lacks {len(missing)} of {count} tensors, such as {missing[0]!r}; save it again"
        )


def remove(model: Any, name: str) -> None:
    """Takes an adapter away, as far as it was put in."""
    with warnings.catch_warnings():
        # Which one peft holds active means nothing: each pass says which it uses.
        warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
        for layer in layers_of(model):
            layer.delete_adapter(name)
    configs = getattr(model, "peft_config", None)
    if isinstance(configs, dict):
        configs.pop(name, None)


def activate(model: Any, name: str | None, loaded: Collection[str]) -> None:
    """Sets the adapter of the next pass; None is the base model alone."""
    if not loaded:
        return
    for layer in layers_of(model):
        if name is not None and name in layer.r:
            layer.enable_adapters(True)
            layer.set_adapter(name, inference_mode=True)
        else:  # this adapter does not touch this layer
            layer.enable_adapters(False)


def layers_of(model: torch.nn.Module) -> list[Any]:
    """The layers that hold adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
