from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from moe_router.errors import RequestError
from moe_router.experts import expert_file
from moe_router.training.experts import state
from moe_router.training.experts import train as training
from moe_router.training.experts.examples import Row
from moe_router.training.experts.lora import LoraShape
from moe_router.training.experts.train import ExpertRun, train_expert
from tests.unit.moe_router.training import expert_fixtures as fixtures


def _quiet(message: str, share: float) -> None:
    """Nobody listens."""


@pytest.fixture
def run(tmp_path: Path) -> ExpertRun:
    data = fixtures.write(tmp_path / "data", fixtures.rows(), fixtures.rows(12))
    return ExpertRun(
        "bank/intent", data, "tiny", tmp_path / "run", tmp_path / "cache", fixtures.TEMPLATE,
        LoraShape(rank=2, alpha=4), learning_rate=1e-2, epochs=6, batch_tokens=300, checks=3, patience=9,
        licence="CC0-1.0",
    )  # fmt: skip


def test_it_learns_and_writes_all_that_serving_and_people_need(run: ExpertRun, gemma_folder: Path) -> None:
    figures = train_expert(run, fixtures.registry(gemma_folder), _quiet)
    metrics = [json.loads(line) for line in (run.output / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert set(figures["languages"]) == {"de", "en"}
    found = expert_file.load(run.output / "adapter", fixtures.LABELS)
    assert found is not None
    assert found.template == fixtures.TEMPLATE
    card = (run.output / "adapter" / "README.md").read_text("utf-8")
    assert "CC0-1.0" in card
    assert str(figures["macro_f1"]) in card
    assert (run.output / "curves.png").stat().st_size > 1000
    assert json.loads((run.output / "config.json").read_text("utf-8"))["learning_rate"] == 1e-2


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    run: ExpertRun, gemma_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = fixtures.registry(gemma_folder)
    train_expert(run, registry, _quiet)
    monkeypatch.setattr(training, "SAVE_EVERY", 3)
    halted = replace(run, output=run.output.with_name("halted"))

    def halt(message: str, share: float) -> None:
        if message.startswith("training") and share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_expert(halted, registry, halt)
    train_expert(replace(halted, resume=True), registry, _quiet)
    for name, whole in load_file(run.output / "state.safetensors").items():
        again = load_file(halted.output / "state.safetensors")[name]
        assert (whole.double() - again.double()).abs().max() < 1e-5, name
    told = [(folder / "metrics.jsonl").read_text("utf-8") for folder in (run.output, halted.output)]
    whole_loss, resumed_loss = (json.loads(lines.splitlines()[-1])["loss"] for lines in told)
    assert resumed_loss == pytest.approx(whole_loss, abs=1e-3)


def test_a_kill_after_a_check_costs_neither_the_best_adapter_nor_a_line(
    run: ExpertRun, gemma_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = fixtures.registry(gemma_folder)
    save = state.save
    whole = train_expert(run, registry, _quiet)
    halted = replace(run, output=run.output.with_name("halted"))
    for writes in range(2):  # before the first standing is written; before the one of the second check

        def halt(*given: Any, left: list[bool] = [True] * writes) -> None:
            if not left:
                raise KeyboardInterrupt
            left.pop()
            save(*given)

        monkeypatch.setattr(state, "save", halt)
        with pytest.raises(KeyboardInterrupt):
            train_expert(replace(halted, resume=writes > 0), registry, _quiet)
    monkeypatch.setattr(state, "save", save)
    with (halted.output / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write('{"step": 6, "lo')  # a kill in the middle of a line
    assert train_expert(replace(halted, resume=True), registry, _quiet) == whole
    steps = [
        [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        for folder in (run.output, halted.output)
    ]
    assert steps[0] == steps[1]
    told = [expert_file.load(folder / "adapter", fixtures.LABELS) for folder in (run.output, halted.output)]
    assert told[0] == told[1]


def test_a_run_that_is_done_goes_on_without_another_step(run: ExpertRun, gemma_folder: Path) -> None:
    registry = fixtures.registry(gemma_folder)
    odd = replace(run, checks=5)  # the last check is no multiple of the others
    figures = train_expert(odd, registry, _quiet)
    before = (run.output / "metrics.jsonl").read_text("utf-8")
    assert train_expert(replace(odd, resume=True), registry, _quiet) == figures
    assert (run.output / "metrics.jsonl").read_text("utf-8") == before


def test_a_damaged_standing_is_told(run: ExpertRun, gemma_folder: Path) -> None:
    registry = fixtures.registry(gemma_folder)
    train_expert(replace(run, epochs=1), registry, _quiet)
    for damaged in (b"", b"no tensors at all"):
        (run.output / state.STATE).write_bytes(damaged)
        with pytest.raises(RequestError, match="cannot go on"):
            train_expert(replace(run, epochs=1, resume=True), registry, _quiet)


@pytest.mark.parametrize(
    ("train", "validation", "told"),
    [
        ([], fixtures.rows(9), "nothing to train on"),
        (fixtures.rows(9), [], "needs two rows or more"),
        (fixtures.rows(9), fixtures.rows(1), "needs two rows or more"),
        ([*fixtures.rows(9), replace(fixtures.rows(1)[0], label="")], fixtures.rows(9), "with a label"),
        (fixtures.rows(9), [*fixtures.rows(9), replace(fixtures.rows(1)[0], label="")], "with a label"),
    ],
)
def test_too_little_data_is_told_before_anything_is_trained(
    train: list[Row], validation: list[Row], told: str, run: ExpertRun, gemma_folder: Path
) -> None:
    registry = fixtures.registry(gemma_folder)
    train_expert(replace(run, epochs=1), registry, _quiet)
    before = {path: path.read_bytes() for path in run.output.rglob("*") if path.is_file()}
    fixtures.write(run.data, train, validation)
    with pytest.raises(RequestError, match=told):
        train_expert(run, registry, _quiet)
    assert before == {path: path.read_bytes() for path in run.output.rglob("*") if path.is_file()}


def test_a_run_never_has_an_earlier_ones_adapter(run: ExpertRun, gemma_folder: Path) -> None:
    registry = fixtures.registry(gemma_folder)
    train_expert(replace(run, epochs=1), registry, _quiet)

    def halt(message: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_expert(replace(run, seed=1), registry, halt)
    assert not (run.output / "adapter").exists()


def test_a_malformed_template_is_told_first(run: ExpertRun) -> None:
    with pytest.raises(RequestError, match=r"no \{\{input\}\}"):
        train_expert(replace(run, template="Label:"), fixtures.registry(Path("no model")), _quiet)


def test_a_run_never_goes_on_with_the_weights_of_an_earlier_one_in_its_folder(
    run: ExpertRun, gemma_folder: Path
) -> None:
    registry = fixtures.registry(gemma_folder)
    train_expert(run, registry, _quiet)
    other = replace(run, seed=run.seed + 1)

    def halt(message: str, share: float) -> None:
        if message.startswith("training"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_expert(other, registry, halt)
    train_expert(replace(other, resume=True), registry, _quiet)
    resumed = load_file(run.output / "state.safetensors")
    train_expert(replace(other, output=run.output.with_name("whole")), registry, _quiet)
    for name, whole in load_file(run.output.with_name("whole") / "state.safetensors").items():
        assert (whole.double() - resumed[name].double()).abs().max() < 1e-5, name


@pytest.mark.parametrize("change", [{"learning_rate": 5e-3}, {"seed": 3}, {"patience": 5}])
def test_a_run_goes_on_only_as_it_began(run: ExpertRun, gemma_folder: Path, change: dict[str, Any]) -> None:
    registry = fixtures.registry(gemma_folder)
    train_expert(replace(run, epochs=1), registry, _quiet)
    [name] = change
    with pytest.raises(RequestError, match=f"the run began with {name} "):
        train_expert(replace(run, epochs=1, resume=True, **change), registry, _quiet)


def test_a_run_goes_on_only_with_its_texts_wherever_they_are(
    run: ExpertRun, gemma_folder: Path, tmp_path: Path
) -> None:
    registry = fixtures.registry(gemma_folder)
    train_expert(replace(run, epochs=1), registry, _quiet)
    moved = run.data.rename(tmp_path / "elsewhere")
    goes_on = replace(run, epochs=1, resume=True, data=moved, licence="another")
    train_expert(goes_on, registry, _quiet)
    with gzip.open(moved / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = lines.readlines()
    rows[0] = rows[0].replace('"text": "', '"text": "x')
    with gzip.open(moved / "train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(rows)
    with pytest.raises(RequestError, match="the run began with texts "):
        train_expert(goes_on, registry, _quiet)


def test_labels_of_validation_rows_are_looked_at_before_the_training(
    run: ExpertRun, gemma_folder: Path
) -> None:
    odd = [replace(fixtures.rows(1)[0], label="nobody's")]
    data = fixtures.write(run.output.parent / "odd", fixtures.rows(30), [*fixtures.rows(9), *odd])
    with pytest.raises(RequestError, match="nobody's"):
        train_expert(replace(run, data=data), fixtures.registry(gemma_folder), _quiet)


def test_what_is_kept_is_the_average_of_the_weights(run: ExpertRun, gemma_folder: Path) -> None:
    train_expert(replace(run, epochs=2, checks=1), fixtures.registry(gemma_folder), _quiet)
    state = load_file(run.output / "state.safetensors")
    kept = load_file(run.output / "adapter" / "adapter_model.safetensors")

    def off(what: str) -> float:
        return max(
            float((state[name] - kept[_saved(name)].float()).abs().max())
            for name in state
            if name.startswith(what)
        )

    assert off("average.") < 1e-3  # the rounding to bfloat16
    assert off("weight.") > 1e-3


def _saved(name: str) -> str:
    """The name that a weight of a state has in the adapter's file."""
    return "base_model.model." + name.partition(".")[2].replace(".trained.", ".")


def test_an_extraction_is_trained_too(run: ExpertRun, tmp_path: Path, gemma_folder: Path) -> None:
    data = fixtures.write(tmp_path / "pii", [fixtures.entity_row()] * 4, [fixtures.entity_row()] * 4)
    pii = replace(run, task="bank/pii", data=data, epochs=2, checks=1)
    figures: dict[str, Any] = train_expert(pii, fixtures.registry(gemma_folder), _quiet)
    assert figures["entities"] == 4
    assert 0 <= figures["span_f1"] <= 1


def test_the_mean_of_runs_is_calibrated_and_judged_like_a_run(run: ExpertRun, gemma_folder: Path) -> None:
    registry = fixtures.registry(gemma_folder)
    folders = []
    for limit in (16, 20):
        part = replace(run, output=run.output.with_name(f"run-{limit}"), limit=limit)
        train_expert(part, registry, _quiet)
        folders.append(part.output / "adapter")
    mean = replace(run, mean_of=tuple(folders), shape=LoraShape(rank=4, alpha=8))
    figures = train_expert(mean, registry, _quiet)
    made = load_file(run.output / "adapter" / "adapter_model.safetensors")
    each = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    for name in (name for name in made if "lora_A" in name):
        products = [
            (weights[name.replace("lora_A", "lora_B")].float() @ weights[name].float())
            for weights in (made, *each)
        ]
        assert products[0].allclose(
            (products[1] + products[2]) / 2, atol=0.02 * float(products[0].abs().max())
        )
    found = expert_file.load(run.output / "adapter", fixtures.LABELS)
    assert found is not None
    assert found.temperature != 1.0
    card = (run.output / "adapter" / "README.md").read_text("utf-8")
    assert "mean of 2 runs' adapters" in card
    assert str(figures["macro_f1"]) in card
    assert (run.output / "curves.png").is_file()


def test_there_is_no_mean_of_other_layers_or_of_a_run_that_goes_on(
    run: ExpertRun, gemma_folder: Path
) -> None:
    registry = fixtures.registry(gemma_folder)
    whole = replace(run, epochs=1)
    train_expert(whole, registry, _quiet)
    mean = replace(run, output=run.output.with_name("mean"), mean_of=(whole.output / "adapter",))
    with pytest.raises(RequestError, match="of other layers"):
        train_expert(replace(mean, shape=LoraShape(rank=2, alpha=4, first_layer=1)), registry, _quiet)
    with pytest.raises(RequestError, match="nothing to resume"):
        train_expert(replace(mean, resume=True), registry, _quiet)
    with pytest.raises(RequestError, match="another prompt"):
        train_expert(replace(mean, template="{{input}}\nAnother:"), registry, _quiet)
    train_expert(mean, registry, _quiet)
    with pytest.raises(RequestError, match="began with mean_of"):
        train_expert(replace(mean, mean_of=(), resume=True), registry, _quiet)


def test_a_mean_is_not_written_over_what_it_is_made_of(run: ExpertRun, gemma_folder: Path) -> None:
    registry = fixtures.registry(gemma_folder)
    train_expert(replace(run, epochs=1), registry, _quiet)
    before = (run.output / "metrics.jsonl").read_text("utf-8")
    for folder in (run.output / "adapter", run.output.with_name("missing")):
        with pytest.raises(RequestError):
            train_expert(replace(run, mean_of=(folder,)), registry, _quiet)
    assert (run.output / "metrics.jsonl").read_text("utf-8") == before


def test_labels_that_the_task_lacks_are_refused(run: ExpertRun, gemma_folder: Path) -> None:
    odd = [replace(row, label="unheard") for row in fixtures.rows(3)]
    fixtures.write(run.data, odd, odd)
    with pytest.raises(RequestError, match="unheard"):
        train_expert(run, fixtures.registry(gemma_folder), _quiet)


@pytest.mark.parametrize("began", ["float32", "bfloat16"])
def test_a_run_goes_on_in_the_dtype_that_it_began_in(
    began: str, run: ExpertRun, gemma_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = fixtures.registry(gemma_folder)
    for resume in (False, True):
        faster = (began == "bfloat16") is not resume  # the machine that goes on is of the other kind
        monkeypatch.setattr(training, "computes_bfloat16", lambda faster=faster: faster)
        train_expert(replace(run, epochs=1, resume=resume), registry, _quiet)
        assert json.loads((run.output / "config.json").read_text(encoding="utf-8"))["dtype"] == began


def test_a_folder_without_a_run_cannot_go_on(run: ExpertRun, gemma_folder: Path) -> None:
    with pytest.raises(RequestError, match="cannot go on"):
        train_expert(replace(run, resume=True), fixtures.registry(gemma_folder), _quiet)
