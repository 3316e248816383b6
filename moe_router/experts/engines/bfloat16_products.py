"""A CPU's products in bfloat16, where a request's numbers stay the same whatever shares its pass.

Most processors that multiply bfloat16 (AMX, AVX-512 BF16) do it twice to eight times as fast as float32.
Rounding the factors moves a label's probability by some tenths of a point. But a rounding turns the least
difference into 2**-9 of a value: a sum that came about in another order, as it may in a pass of another
length, would move the probability by as much, with the batch. oneDNN sums each row in one order whatever the
number of rows, from a size on; an activation function has other last bits where a thread's share ends within
a vector. So the machine is looked at before this is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch.nn.functional import linear
from transformers.activations import ACT2FN

from moe_router.experts.engines.cpu_products import rounded_rows

LENGTHS = [*sorted({rounded_rows(count) for count in range(1, 513)}), 576, 1024, 1280]
"""Lengths of passes that are looked at: all up to 512, and some of those that are longer."""
SHARES = {"activation": 32768, "rotary": 2048}
"""Elements up to which torch gives a function to one thread (at::internal::GRAIN_SIZE, less for sin, cos)."""
WHOLE_PASS_ROPES = ("dynamic", "longrope")
"""Whose angles hang on the longest position of a pass."""
ACTIVATIONS = ("hidden_activation", "hidden_act", "activation_function")
"""Where configurations name the function of the feed-forward part."""


class Bfloat16Linear(torch.nn.Linear):
    """A linear layer that multiplies in bfloat16, sums in float32, and rounds the sums; for any dtype."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        """Of the layer's weights, rounded."""
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight = _rounded(layer.weight)
        if layer.bias is not None:
            self.bias = _rounded(layer.bias)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """(…, in_features) to (…, out_features)."""
        return linear(given.to(torch.bfloat16), self.weight, self.bias).to(given.dtype)


def _rounded(weights: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(weights.detach().to(torch.bfloat16), requires_grad=False)


def use_bfloat16(module: torch.nn.Module) -> bool:
    """Replaces a module's float32 linear layers, one by one: there is seldom room for all of them twice.

    Returns:
        Whether there was one.
    """
    names = [
        name
        for name, layer in module.named_modules()
        if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32
    ]
    for name in names:
        module.set_submodule(name, Bfloat16Linear(cast(torch.nn.Linear, module.get_submodule(name))))
    return bool(names)


def keeps_rows_apart(decoder: torch.nn.Module, config: Any) -> bool:
    """Whether here, with as many threads, each row of a pass comes out the same whatever the pass's length.

    Args:
        decoder: its linear layers are looked at; False where it multiplies in others, too, as most mixtures
            of experts do, in which a row's company is another one in each pass.
        config: names its activation function; False where it does not.
    """
    name = next(filter(None, (getattr(config, field, None) for field in ACTIVATIONS)), None)
    width = getattr(config, "intermediate_size", None)
    ropes = getattr(config, "rope_parameters", None) or {}
    whole_pass = any(kind in str(ropes) for kind in WHOLE_PASS_ROPES)
    if name not in ACT2FN or not isinstance(width, int) or whole_pass:
        return False
    if any(_multiplies_otherwise(module) for module in decoder.modules()):
        return False
    layers = [layer for layer in decoder.modules() if isinstance(layer, torch.nn.Linear)]
    shapes = {(layer.in_features, layer.out_features, layer.bias is not None) for layer in layers}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = int(head * ropes.get("partial_rotary_factor", 1.0))
    with torch.inference_mode():
        return (
            _keeps(ACT2FN[name], width, SHARES["activation"])
            and all(_keeps(function, turned, SHARES["rotary"]) for function in (torch.cos, torch.sin))
            and all(_keeps_product(*shape) for shape in shapes)
        )


def round_adapter(layers: Sequence[Any], name: str) -> None:
    """Puts an adapter's updates into bfloat16, or into float64 where bfloat16 would not keep rows apart.

    Products of few rows with matrices of a rank as low as 2 are not oneDNN's. In float64 no order shows.

    Args:
        layers: those that hold adapters.
        name: the adapter's, which is nothing but LoRA.
    """
    parts = [part[name] for layer in layers for part in (layer.lora_A, layer.lora_B) if name in part]
    shapes = {(part.in_features, part.out_features, part.bias is not None) for part in parts}
    with torch.inference_mode():
        kept = all(_keeps_product(*shape) for shape in shapes)
    for part in parts:
        part.to(torch.bfloat16 if kept else torch.float64)


def _multiplies_otherwise(module: torch.nn.Module) -> bool:
    known = type(module) is torch.nn.Linear or isinstance(module, torch.nn.Embedding)
    return not known and any(own.dim() > 1 for own in module.parameters(recurse=False))


def _keeps(function: Callable[[torch.Tensor], torch.Tensor], width: int, share: int) -> bool:
    given = _normal(LENGTHS[-1], width)
    by_one_thread = torch.cat([function(part) for part in torch.split(given, max(share // width, 1))])
    return all(torch.equal(function(given[:rows]), by_one_thread[:rows]) for rows in LENGTHS)


def _keeps_product(inputs: int, outputs: int, biased: bool) -> bool:
    # Each term is there once more with the other sign: what is left of the sums is what their order makes.
    places = torch.randperm(2 * (inputs // 2), generator=_generator())
    given, weights = _normal(LENGTHS[-1], inputs // 2), _normal(outputs, inputs // 2)
    given = torch.cat([given, given], 1)[:, places].bfloat16()
    weights = torch.cat([weights, -weights], 1)[:, places].bfloat16()
    bias = torch.zeros(outputs, dtype=torch.bfloat16) if biased else None
    wanted = linear(given, weights, bias)
    return all(torch.equal(linear(given[:rows], weights, bias), wanted[:rows]) for rows in LENGTHS)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_generator())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
