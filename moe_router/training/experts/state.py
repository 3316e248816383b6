"""Where a training run stands, so that it can go on after it was stopped: one safetensors file, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from moe_router.errors import RequestError
from moe_router.training.experts.lora import LoraModel
from moe_router.training.experts.weight_average import WeightAverage

STATE = "state.safetensors"
_RNG = "rng"
_STANDING = "standing"


@dataclass(slots=True)
class Standing:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        best: the best figure on the validation rows so far.
        best_step: when it was reached.
        loss: the moving average of the loss; None before the first step.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    loss: float | None = None


def save(
    folder: Path,
    model: LoraModel,
    optimizer: torch.optim.AdamW,
    average: WeightAverage,
    standing: Standing,
) -> None:
    """Writes the weights, their average, the optimiser's moments, the random state and the standing.

    All in one file, which is replaced as a whole: a kill leaves the older one.
    """
    tensors: dict[str, torch.Tensor] = {_RNG: torch.get_rng_state()}
    for name, weights in model.parameters().items():
        tensors[f"weight.{name}"] = weights.detach().cpu()
        tensors[f"average.{name}"] = average.values[name].cpu()
        for key in ("exp_avg", "exp_avg_sq"):
            if weights in optimizer.state:
                tensors[f"{key}.{name}"] = optimizer.state[weights][key].cpu()
    part = folder / f"{STATE}.part"
    save_file(tensors, part, metadata={_STANDING: json.dumps(asdict(standing))})
    part.replace(folder / STATE)


def forget(folder: Path) -> None:
    """Removes an earlier run's standing from the folder: `load` must not take it for the new one's."""
    (folder / STATE).unlink(missing_ok=True)


def setting(file: Path, name: str) -> object:
    """One of the settings that a run began with.

    Raises:
        RequestError: the file cannot be read.
    """
    return _settings(file).get(name)


def check_settings(file: Path, settings: Mapping[str, object]) -> None:
    """Sees to it that a run goes on as it began.

    Raises:
        RequestError: the settings that the file holds are others, or there is no such file.
    """
    before = _settings(file)
    now = json.loads(json.dumps(settings))
    for name, value in now.items():
        if before.get(name) != value:
            raise RequestError(f"{file}: the run began with {name} {before.get(name)!r}, not {value!r}.")


def _settings(file: Path) -> dict[str, object]:
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{file}: the run cannot go on: {type(error).__name__}: {error}") from error
    return before if isinstance(before, dict) else {}


def load(folder: Path, model: LoraModel, optimizer: torch.optim.AdamW, average: WeightAverage) -> Standing:
    """Takes a run up where `save` left it; at its beginning where it was stopped before that.

    Raises:
        RequestError: the state is damaged, or that of another model.
    """
    if not (folder / STATE).exists():
        return Standing()
    try:
        with safe_open(folder / STATE, framework="pt") as file:
            standing = Standing(**json.loads(file.metadata()[_STANDING]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        for name, weights in model.parameters().items():
            weights.data.copy_(tensors[f"weight.{name}"])
            average.values[name].copy_(tensors[f"average.{name}"])
            if f"exp_avg.{name}" in tensors:
                optimizer.state[weights] = {
                    "step": torch.tensor(float(standing.step)),
                    "exp_avg": tensors[f"exp_avg.{name}"].to(weights.device),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(weights.device),
                }
        torch.set_rng_state(tensors[_RNG])
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
        raise RequestError(f"{folder}: the run cannot go on: {type(error).__name__}: {error}") from error
    return standing
