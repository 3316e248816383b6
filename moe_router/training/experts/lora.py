"""A base model with one LoRA adapter to train, and the loss over the choices of a batch.

Of the LM head, only the rows of the tokens that may be chosen are multiplied: of a vocabulary of 262 thousand
the whole head would cost more than the rest of a 270 M model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from moe_router.errors import ModelAssetError, RequestError
from moe_router.experts.engines.adapters import CONFIG, WEIGHTS
from moe_router.experts.engines.lm_head import LmHead
from moe_router.training.experts.examples import Example

ADAPTER = "trained"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_RANK = 64
_PREFIX = "base_model.model."
"""Before every tensor's name in adapters that peft itself saves."""


@dataclass(frozen=True, slots=True)
class LoraShape:
    """Which weights get an adapter, and how large it is."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS
    first_layer: int = 0
    """layers below stay as they are: the backward pass ends here"""


class LoraModel:
    """The base model, its frozen weights as they were loaded, and the adapter's in float32.

    Args:
        model: an `AutoModelForCausalLM`; its layers are replaced in place.
        shape: the adapter's.

    Raises:
        ModelAssetError: the model has none of the targets.
        RequestError: the model has not so many layers.
    """

    def __init__(self, model: Any, shape: LoraShape) -> None:
        self.model = model
        model.requires_grad_(False)
        layers = int(model.config.get_text_config(decoder=True).num_hidden_layers)
        if not 0 <= shape.first_layer < layers:
            raise RequestError(f"There is no layer {shape.first_layer}: the model has {layers}, from 0.")
        self._config = LoraConfig(
            r=shape.rank, lora_alpha=shape.alpha, lora_dropout=shape.dropout,
            target_modules=list(shape.targets),
            layers_to_transform=list(range(shape.first_layer, layers)) if shape.first_layer else None,
            task_type="CAUSAL_LM",
        )  # fmt: skip
        try:
            inject_adapter_in_model(self._config, model, adapter_name=ADAPTER)
        except ValueError as error:
            raise ModelAssetError(f"{type(model).__name__} has none of {', '.join(shape.targets)}") from error
        for _, weights in self._named():
            weights.data = weights.data.float()
        self.device = model.get_input_embeddings().weight.device
        self._head = LmHead(model)

    def _named(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if "lora_" in name]

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The adapter's weights by name."""
        return dict(self._named())

    def train(self) -> None:
        """Makes the adapter's weights take gradients again; an engine that judged it froze them."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(True)
                module.set_adapter(ADAPTER)
        for _, weights in self._named():
            weights.requires_grad_(True)
        self.model.train()

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Mean over the examples of -log P(answer), a scalar; what serving would say of the right answers."""
        width = max(len(example.tokens) for example in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for row, example in enumerate(batch):
            ids[row, : len(example.tokens)] = torch.tensor(example.tokens)
            mask[row, : len(example.tokens)] = 1
        places = [(row, choice) for row, example in enumerate(batch) for choice in example.choices]
        with self._autocast():
            hidden = self.model.get_decoder()(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False
            ).last_hidden_state
        at = torch.tensor([[row, choice.at] for row, choice in places], device=self.device)
        logits = self._logits(hidden[at[:, 0], at[:, 1]], [choice.options for _, choice in places])
        gold = torch.tensor([choice.gold for _, choice in places], device=self.device)
        return functional.cross_entropy(logits, gold, reduction="sum") / len(batch)

    def _logits(self, hidden: Tensor, options: Sequence[tuple[int, ...]]) -> Tensor:
        """(n_choices, most options) float32; -inf where a choice has fewer."""
        values, place = self._head.rows(hidden, options)
        width = max(map(len, options))
        index = torch.tensor([[place[t] for t in own] + [0] * (width - len(own)) for own in options])
        absent = torch.tensor([[False] * len(own) + [True] * (width - len(own)) for own in options])
        gathered: Tensor = values.gather(1, index.to(self.device))
        return gathered.masked_fill(absent.to(self.device), float("-inf"))

    def _autocast(self) -> AbstractContextManager[Any]:
        half = self.model.get_input_embeddings().weight.dtype == torch.bfloat16
        context: AbstractContextManager[Any] = torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=half
        )
        return context

    def restore(self, folder: Path) -> None:
        """Takes over the weights that `save` wrote."""
        self.take(load_file(folder / WEIGHTS))

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over weights, by the names that `save` gives them.

        Raises:
            RequestError: they are of other layers than this adapter's.
        """
        own = {name.replace(f".{ADAPTER}.", "."): value for name, value in self._named()}
        given = {name.removeprefix(_PREFIX): value for name, value in weights.items()}
        if {name: value.shape for name, value in own.items()} != {n: v.shape for n, v in given.items()}:
            raise RequestError(
                "The adapter's weights are of other layers than this model's and this shape's."
            )
        for name, value in given.items():
            own[name].data.copy_(value)

    def save(self, folder: Path, base: str) -> None:
        """Writes the adapter as peft does: `adapter_config.json`, and bfloat16 safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(self.model, adapter_name=ADAPTER)
        tensors = {
            _PREFIX + name.removeprefix(_PREFIX): value.detach().to("cpu", torch.bfloat16).contiguous()
            for name, value in state.items()
        }
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)  # safetensors makes it private
        config = {
            key: _plain(value) for key, value in asdict(self._config).items() if key != "runtime_config"
        }
        config |= {"base_model_name_or_path": base, "inference_mode": True}
        text = json.dumps(config, indent=2, sort_keys=True)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value
