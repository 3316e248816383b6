"""Where a training run stands, so that it can go on after it was stopped: safetensors and JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from moe_router.errors import RequestError
from moe_router.training.experts.lora import LoraModel
from moe_router.training.experts.weight_average import WeightAverage

STATE = "state"
SUFFIXES = ("json", "safetensors")
_RNG = "rng"


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

    The description goes last, and each file is replaced as a whole: a kill between leaves the older pair
    or the newer weights with their own step, which the tensors hold too.
    """
    tensors: dict[str, torch.Tensor] = {_RNG: torch.get_rng_state(), "step": torch.tensor(standing.step)}
    for name, weights in model.parameters().items():
        tensors[f"weight.{name}"] = weights.detach().cpu()
        tensors[f"average.{name}"] = average.values[name].cpu()
        for key in ("exp_avg", "exp_avg_sq"):
            if weights in optimizer.state:
                tensors[f"{key}.{name}"] = optimizer.state[weights][key].cpu()
    save_file(tensors, folder / f"{STATE}.part")
    (folder / f"{STATE}.part").replace(folder / f"{STATE}.safetensors")
    part = folder / f"{STATE}.json.part"
    part.write_text(json.dumps(asdict(standing)) + "\n", encoding="utf-8")
    part.replace(folder / f"{STATE}.json")


def forget(folder: Path) -> None:
    """Removes an earlier run's standing from the folder: `load` must not take it for the new one's."""
    for suffix in SUFFIXES:
        (folder / f"{STATE}.{suffix}").unlink(missing_ok=True)


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
    if not any((folder / f"{STATE}.{suffix}").exists() for suffix in SUFFIXES):
        return Standing()
    try:
        tensors = load_file(folder / f"{STATE}.safetensors")
        standing = Standing(**json.loads((folder / f"{STATE}.json").read_text(encoding="utf-8")))
        standing.step = int(tensors["step"])
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
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise RequestError(f"{folder}: the run cannot go on: {type(error).__name__}: {error}") from error
    return standing
