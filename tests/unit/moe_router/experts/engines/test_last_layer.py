from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from moe_router.experts.engines import packed, transformers
from moe_router.experts.engines.base import LabelJob
from moe_router.experts.engines.cpu_products import rounded_rows
from moe_router.experts.engines.last_layer import LastLayer, runs_at
from moe_router.experts.engines.mixed import MixedLora, Run
from moe_router.experts.engines.packed import NO_SLOTS, PackedSession
from moe_router.experts.engines.transformers import TransformersEngine
from moe_router.experts.prompting import Template
from moe_router.experts.scoring import LabelTrie
from tests.unit.moe_router.experts import tiny
from tests.unit.moe_router.experts.engines.test_blocks import model_of

TEMPLATE = Template("Text: {{input}}\nLabel:")
MANY = [f"card {a} {b} {c}" for a in ("lost", "late") for b in ("fee", "arrival", "pin") for c in ("x", "y")]


def engine_of(folder: Path, adapters: Sequence[Path] = ()) -> TransformersEngine:
    engine = TransformersEngine(*model_of(folder))
    for index, adapter in enumerate(adapters):
        engine.load_adapter(f"a{index}", str(adapter))
    return engine


def jobs_of(engine: TransformersEngine) -> list[LabelJob]:
    """Of three adapters, in no order."""
    found = []
    for adapter, size in (("a0", 9), (None, 30), ("a1", 3), ("a0", 50), ("a1", 12), (None, 2)):
        prompt = engine.tokens.prompt(TEMPLATE, {"input": "card payment declined "[: size % 23] * 5}, adapter)
        sequences = [engine.tokens.encode(TEMPLATE.label_prefix + label, trusted=False) for label in MANY]
        found.append(LabelJob(prompt, LabelTrie(sequences, engine.tokens.line_end), exact=True))
    return found


def probabilities(engine: TransformersEngine) -> list[Any]:
    return [np.exp(outcome) for outcome in engine.infer(jobs_of(engine))]


def test_it_says_what_the_whole_layer_says(
    gemma_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = ["q_proj", "gate_proj", "up_proj", "down_proj"]
    adapters = [
        tiny.save_adapter(tmp_path / str(seed), gemma_folder, seed=seed, target_modules=modules)
        for seed in (1, 2)
    ]
    spared = engine_of(gemma_folder, adapters)
    assert spared._packed._last_layer is not None
    monkeypatch.setattr(transformers.LastLayer, "of", lambda *_: None)
    whole = engine_of(gemma_folder, adapters)
    assert whole._packed._last_layer is None
    for found, wanted in zip(probabilities(spared), probabilities(whole), strict=True):
        assert found == pytest.approx(wanted, abs=1e-6)


def test_only_what_is_read_passes_through_it(llama_folder: Path) -> None:
    engine = engine_of(llama_folder)
    seen: dict[str, list[int]] = {"first": [], "last": []}
    layers = engine._model.get_decoder().layers
    for name, layer in (("first", layers[0]), ("last", layers[-1])):

        def note(_layer: Any, given: tuple[torch.Tensor, ...], _found: Any, name: str = name) -> None:
            seen[name].append(given[0].shape[1])

        layer.mlp.up_proj.register_forward_hook(note)
    jobs = [job for job in jobs_of(engine) if job.prompt.adapter is None]
    engine.infer(jobs)
    # A head, whose keys and values alone are kept; then the places at which the labels of the prompts part.
    assert seen["last"] == [8, rounded_rows(len(jobs) * len(jobs[0].trie.branches))]
    assert seen["last"][1] < seen["first"][1]


def test_hidden_states_come_in_the_order_that_they_are_asked_for(llama_folder: Path) -> None:
    engine = engine_of(llama_folder)

    def states(wanted: Sequence[int]) -> torch.Tensor:
        session = PackedSession(engine._packed)
        session.add(range(5, 25), NO_SLOTS, 0)
        with torch.inference_mode():
            return session.run(wanted)

    assert torch.allclose(
        states([7, 3, 7, 19]), torch.stack([states([at])[0] for at in (7, 3, 7, 19)]), atol=1e-6
    )


@contextmanager
def losing(self: LastLayer, rows: Sequence[int]) -> Iterator[None]:
    hook = self._part.register_forward_hook(lambda _part, _given, found: torch.randn_like(found))
    yield
    hook.remove()


@contextmanager
def choking(self: LastLayer, rows: Sequence[int]) -> Iterator[None]:
    raise TypeError("it is called in a way of its own")
    yield


@pytest.mark.parametrize("fault", [losing, choking])
def test_a_model_that_is_not_right_with_it_is_served_without(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    monkeypatch.setattr(LastLayer, "only", fault)
    with caplog.at_level("INFO"):
        engine = engine_of(llama_folder)
    assert engine._packed._last_layer is None
    assert engine._packed.in_blocks
    assert "is not right with blocks=True, last_layer=True" in caplog.text
    assert np.isfinite(engine.infer([job for job in jobs_of(engine) if job.prompt.adapter is None])).all()


def test_a_model_that_is_right_with_neither_is_served_all_the_same(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LastLayer, "only", choking)
    monkeypatch.setattr(packed, "masks_of", lambda *_: torch.zeros(1, 1, 1, 1))
    engine = engine_of(llama_folder)
    assert engine._packed._last_layer is None
    assert not engine._packed.in_blocks
    assert engine._model.config._attn_implementation == "sdpa"


def test_what_comes_behind_it_in_the_layer_is_of_all_tokens(
    gemma_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Gemma 4, whose layers end with a gate that adapters may change."""

    def engine() -> TransformersEngine:
        model, tokens = model_of(gemma_folder)
        for layer in model.get_decoder().layers:
            torch.manual_seed(3)
            layer.gate = torch.nn.Linear(model.config.hidden_size, model.config.hidden_size, bias=False)
            layer.register_forward_hook(lambda layer, _given, found: found + layer.gate(found))
        made = TransformersEngine(model, tokens)
        for name, folder in zip(("a0", "a1"), folders, strict=True):
            made.load_adapter(name, str(folder))
        return made

    folders = []
    for seed in (1, 2):
        folder = tiny.save_adapter(tmp_path / str(seed), gemma_folder, seed=seed, target_modules=["q_proj"])
        weights = load_file(folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        layers = {name.partition(".self_attn")[0] for name in weights}
        size = next(tensor.shape[1] for name, tensor in weights.items() if "lora_A" in name)
        for layer in layers:
            weights[f"{layer}.gate.lora_A.weight"] = torch.randn(2, size)
            weights[f"{layer}.gate.lora_B.weight"] = torch.randn(size, 2)
        save_file(weights, folder / "adapter_model.safetensors")
        config["target_modules"] = ["q_proj", "gate"]
        (folder / "adapter_config.json").write_text(json.dumps(config))
        folders.append(folder)
    spared = probabilities(engine())
    monkeypatch.setattr(transformers.LastLayer, "of", lambda *_: None)
    for found, wanted in zip(spared, probabilities(engine()), strict=True):
        assert found == pytest.approx(wanted, abs=1e-6)


def test_a_pass_that_fails_leaves_nothing_behind(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(llama_folder)
    jobs = [job for job in jobs_of(engine) if job.prompt.adapter is None]
    before = engine.infer(jobs)
    act = engine._model.get_decoder().layers[-1].mlp.act_fn

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(act, "forward", fail)
    with pytest.raises(RuntimeError, match="no"):
        engine.infer(jobs)
    monkeypatch.undo()
    part = engine._model.get_decoder().layers[-1].mlp
    assert not part._forward_hooks
    assert not part._forward_pre_hooks
    assert np.array(engine.infer(jobs)) == pytest.approx(np.array(before), abs=1e-6)


class Decoder(torch.nn.Module):
    def __init__(self, part: torch.nn.Module | None) -> None:
        super().__init__()
        layer = torch.nn.Module()
        layer.mlp = part
        self.layers = torch.nn.ModuleList([layer])


class Experts(torch.nn.Module):
    """A mixture's, as transformers keeps them: one tensor for all."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(4, 2)
        self.weights = torch.nn.Parameter(torch.zeros(2, 4, 4))


@pytest.mark.parametrize("decoder", [Decoder(None), Decoder(Experts()), Decoder(torch.nn.SiLU()), object()])
def test_what_is_no_plain_feed_forward_part_is_left_alone(decoder: Any) -> None:
    assert LastLayer.of(decoder, MixedLora()) is None


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([0, 4, 5, 9], [("a", 0, 2), ("b", 2, 3), (None, 3, 4)]),
        ([9, 9, 9], [(None, 0, 3)]),
        ([5], [("b", 0, 1)]),
    ],
)
def test_runs_follow_their_tokens(rows: list[int], wanted: list[Run]) -> None:
    assert runs_at([("a", 0, 5), ("b", 5, 8), (None, 8, 10)], rows) == wanted
