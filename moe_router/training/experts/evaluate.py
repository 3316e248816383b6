"""Judges an expert beside what it must beat: the base model without an adapter, and a linear head."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from moe_router.errors import ModelAssetError, RequestError
from moe_router.experts import expert_file
from moe_router.experts.engines.base import Engine
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.expert_file import ExpertFile
from moe_router.experts.prompting import load_template
from moe_router.experts.roster import resolve
from moe_router.experts.task_expert import TaskExpert
from moe_router.gating.encoder import Encoder
from moe_router.gating.probe import Probe
from moe_router.registry import Expert, Registry, TaskSpec
from moe_router.training.experts.examples import Row, halves, read_rows
from moe_router.training.experts.judge import Report, ask, figures, probability_figures
from moe_router.training.probes import ProbeRun, encoded, fit_probe

logger = logging.getLogger(__name__)

ADAPTER = "judged"
FEW_SHOT, ZERO_SHOT = "few-shot", "zero-shot"
MAX_TEXT_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What to judge, and on what.

    Attributes:
        task: its key.
        data: folder with validation.jsonl.gz, or a file of rows: of the folder's the half is used that chose
            nothing in training, of a file all rows.
        base: the base model's key.
        adapter: the adapter's folder; None takes the registry's, with the prompt that it is served with.
        adapter_root: where the registry's relative paths start.
        cache: where models are kept.
        limit: at most so many texts, from the front.
        baselines: whether the base model and the linear head are judged too.
        probes: folder of linear heads; a missing one is fitted on the train file, where data is a folder.
    """

    task: str
    data: Path
    base: str
    adapter: Path | None
    adapter_root: Path
    cache: Path
    limit: int | None = None
    baselines: bool = True
    probes: Path | None = None


def evaluate_expert(
    given: Evaluation, registry: Registry, encoder: Encoder | None, report: Report
) -> dict[str, Any]:
    """Figures by way: `adapter`, `few-shot`, `zero-shot` and `linear head`, as far as there are such.

    A prompt of the base model that leaves no room for a text is left out, and so is a linear head that cannot
    be had; the log says so.

    Raises:
        RequestError: the data cannot be read, or the task has no expert on the base model.
        ModelAssetError: the base model or the adapter cannot be had.
    """
    task = registry.task(given.task)
    declared = next((e for e in registry.all_experts(given.task) if e.base_model_key == given.base), None)
    if declared is None:
        raise RequestError(f"{given.task} has no expert on the base model {given.base!r}.")
    rows = _rows(given)
    spec = registry.base_models[given.base]
    # As a worker's; a base that a model server holds is judged here, too.
    spec = spec.model_copy(update={"engine": "transformers"})
    engine = make_engine(spec, EngineOptions(given.cache, MAX_TEXT_TOKENS))
    found: dict[str, Any] = {}
    for name, expert in _ways(given, declared, task, engine).items():
        try:
            jobs = expert.warm_up_jobs()
        except ModelAssetError as error:
            if name != FEW_SHOT and not found:
                raise
            logger.warning("%s is left out: %s", name, error)
            continue
        expert.warmed_up(engine.infer(jobs))
        asked = [within(row) for row in rows] if name == ZERO_SHOT else rows
        answers = ask(expert, engine, asked, lambda _m, share, name=name: report(name, share))  # type: ignore[misc]
        found[name] = figures(answers, rows, extracts=expert.extracts)
    if encoder is not None and task.kind == "classification" and _has_linear(given):
        try:
            found["linear head"] = _linear(given, task, rows, encoder, report)
        except (ModelAssetError, RequestError) as error:
            logger.warning("the linear head is left out: %s", error)
    return found


def _rows(given: Evaluation) -> list[Row]:
    path = given.data if given.data.is_file() else given.data / "validation.jsonl.gz"
    rows = read_rows(path)
    if path != given.data:
        _, rows = halves(rows)
    if not rows:
        raise RequestError(f"{path} has no rows to judge on.")
    return rows[: given.limit]


def _ways(given: Evaluation, declared: Expert, task: TaskSpec, engine: Engine) -> dict[str, TaskExpert]:
    ways: dict[str, TaskExpert] = {}
    template = resolve(given.adapter_root, declared.template_path) if declared.template_path else None
    served = resolve(given.adapter_root, declared.adapter_path) if declared.adapter_path else None
    folder = given.adapter or served
    if folder is not None:
        engine.load_adapter(ADAPTER, str(folder))
        trained = expert_file.load(folder, task.label_set)
        # The registry's adapter is judged with the prompt that it is served with, any other with its own.
        is_served = served is not None and folder.resolve() == served.resolve()
        own = template if is_served or trained is None else None
        if own is None and template is not None and trained is not None:
            _tell_another_prompt(template, declared, trained)
        ways["adapter"] = TaskExpert(declared, task, own, engine.tokens, ADAPTER, trained=trained)
    if given.baselines:
        # The key of no model: what an untrained model is asked is the file's `default`.
        bare = Expert("base", given.task, "default", None, None, None, None, 1.0)
        if template is not None:
            ways[FEW_SHOT] = TaskExpert(bare, task, template, engine.tokens, None)
        ways[ZERO_SHOT] = TaskExpert(bare, task, None, engine.tokens, None)
    return ways


def _tell_another_prompt(template: Path, declared: Expert, trained: ExpertFile) -> None:
    if load_template(template, declared.base_model_key) != trained.template:
        logger.warning(
            "%s: the adapter is judged with the prompt that it was trained on; %s holds another",
            declared.task_key, template,
        )  # fmt: skip


def within(row: Row) -> Row:
    """The row with its context in its text, for a prompt that has no other place for it."""
    told = [f"{name}: {value}" for name, value in row.context.items()]
    return replace(row, text="\n".join([*told, row.text]), context={})


def _has_linear(given: Evaluation) -> bool:
    fitted = given.probes is not None and (given.probes / f"{_name(given)}.safetensors").is_file()
    return given.baselines and (fitted or (given.data / "train.jsonl.gz").is_file())


def _name(given: Evaluation) -> str:
    return given.task.replace("/", "__")


def _linear(
    given: Evaluation, task: TaskSpec, rows: Sequence[Row], encoder: Encoder, report: Report
) -> dict[str, Any]:
    """A logistic regression on the encoder's embedding: gating's probe, or one fitted now."""
    name = _name(given)
    with TemporaryDirectory() as made:
        folder = given.probes
        if folder is None or not (folder / f"{name}.safetensors").is_file():
            folder = Path(made)
            fit_probe(ProbeRun(given.data, given.task, folder), encoder, report)
        probe = Probe(folder / name, task.label_set, encoder=encoder.identity, hidden=encoder.hidden)
    vectors = encoded(encoder, rows, given.task, report)
    return probability_figures([probe(vector).probabilities for vector in vectors], rows)
