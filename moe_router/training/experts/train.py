"""Trains the LoRA adapter of an expert: `mole train expert`."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moe_router.assets.base_model import ensure_base_model
from moe_router.errors import RequestError
from moe_router.experts import expert_file
from moe_router.experts.engines.cpu_products import computes_bfloat16
from moe_router.experts.engines.loading import context_length, load_model
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.engines.transformers import TransformersEngine
from moe_router.experts.expert_file import ExpertFile
from moe_router.experts.prompting import Template
from moe_router.experts.task_expert import TaskExpert
from moe_router.registry import Expert, Registry
from moe_router.training.experts import state
from moe_router.training.experts.batches import batches
from moe_router.training.experts.examples import Example, Row, examples_of, judging_rows, read_rows
from moe_router.training.experts.judge import (
    Answers,
    Report,
    ask,
    entity_temperatures,
    figures,
)
from moe_router.training.experts.lora import ADAPTER, LoraModel, LoraShape
from moe_router.training.experts.mean_adapter import mean_of
from moe_router.training.experts.report import write as write_report
from moe_router.training.experts.weight_average import WeightAverage
from moe_router.training.experts.words import choose_words
from moe_router.training.gating import fit_temperature, index_of

logger = logging.getLogger(__name__)

MAX_TEXT_TOKENS = 400
"""Of a text, in training and in judging; the datasets' tweets, headlines and questions are far shorter."""

SETTINGS = "config.json"
FREE_SETTINGS = frozenset({"data", "output", "cache", "licence", "resume"})
"""A run that goes on may find its folders elsewhere; its texts are known by their digest."""
SAVE_EVERY = 50
"""Steps between two saved standings: a run that is killed loses at most so many."""


@dataclass(frozen=True, slots=True)
class ExpertRun:
    """One adapter to train."""

    task: str
    data: Path
    """folder with train.jsonl.gz and validation.jsonl.gz"""
    base: str
    """the base model's key in the registry"""
    output: Path
    """the run's folder; the adapter is in its folder `adapter`"""
    cache: Path
    template: str
    shape: LoraShape = field(default_factory=LoraShape)
    learning_rate: float = 6e-4
    epochs: float = 3.0
    batch_tokens: int = 640
    """rows × longest row of a step"""
    limit: int | None = None
    """at most so many training texts, drawn by the seed"""
    judged: int = 800
    """at most so many validation texts of each half: for checks and temperatures, and for the figures"""
    checks: int = 8
    """how often it is checked in all"""
    patience: int = 4
    """checks without a better figure before it stops"""
    words: bool = True
    """whether labels of many tokens are stood for by words of one"""
    licence: str = "not stated"
    """of the data, for the model card"""
    seed: int = 0
    resume: bool = False
    mean_of: tuple[Path, ...] = ()
    """adapters whose mean is taken instead of training"""


def train_expert(run: ExpertRun, registry: Registry, report: Report) -> dict[str, Any]:
    """Trains, keeps the best adapter by its figure on validation rows, and calibrates it.

    Or takes the mean of others for the best.

    The validation file is halved by a fixed draw: one half chooses the checkpoint and the temperatures, as do
    the rows of CHOOSING where the folder has such; the other is only reported on.

    Returns:
        The figures on the reported half, also written into the run's folder.

    Raises:
        RequestError: the template is malformed; the data is missing, too little, or its labels are not those
            of the task; the run cannot go on; or there is no mean of the adapters.
        ModelAssetError: the base model cannot be had, or takes no adapter.
    """
    mean = _mean(run) if run.mean_of else None  # before anything of an earlier run is written over
    torch.manual_seed(run.seed)
    trainer = _Trainer(run, registry, report)
    if mean is None:
        trainer.fit()
    else:
        trainer.take(mean)
    return trainer.conclude()


def _mean(run: ExpertRun) -> dict[str, torch.Tensor]:
    if run.resume:
        raise RequestError("A mean of adapters is taken at once: there is nothing to resume.")
    own = run.output.resolve()
    if any(folder.resolve().is_relative_to(own) for folder in run.mean_of):
        raise RequestError(f"{run.output} holds one of the adapters: write their mean elsewhere.")
    return mean_of(run.mean_of, run.shape)


def _template(run: ExpertRun) -> Template:
    try:
        return Template(run.template)
    except ValueError as error:
        raise RequestError(f"The template: {error}") from error


def _dtype(run: ExpertRun) -> str:
    """What the run began in, so that another machine may go on with it; else what is faster here."""
    began = state.setting(run.output / SETTINGS, "dtype") if run.resume else None
    if began in ("bfloat16", "float32"):
        return str(began)
    return "bfloat16" if torch.cuda.is_available() or computes_bfloat16() else "float32"


class _Trainer:
    def __init__(self, run: ExpertRun, registry: Registry, report: Report) -> None:
        self._run = run
        self._report = report
        self._task = registry.task(run.task)
        prefix = _template(run).label_prefix
        spec = registry.base_models[run.base]
        source = ensure_base_model(spec.hf_name, run.cache)
        self._base_name = spec.hf_name
        self._notice = Path(source) / "NOTICE"
        self._dtype = _dtype(run)
        model, tokenizer = load_model(source, spec.model_copy(update={"torch_dtype": self._dtype}))
        self._tokens = HfTokens(tokenizer, MAX_TEXT_TOKENS, context_length(model))
        self._model = LoraModel(model, run.shape)
        extracts = self._task.kind == "extraction"
        encode = lambda text: self._tokens.encode(text, trusted=False)  # noqa: E731
        words = None
        if run.words and not extracts:
            words = choose_words(self._task.label_set, encode, prefix, self._tokens.line_end)
        self._file = ExpertFile(labels=self._task.label_set, template=run.template, words=words)
        key = run.task.replace("/", "-")
        self._named = Expert(key, run.task, run.base, key, "", None, None, 1.0)
        self._expert = self._serving(self._file)
        self._extracts = extracts
        rows = read_rows(run.data / "train.jsonl.gz")
        self._select, self._held = judging_rows(run.data, run.judged)
        self._check_rows([*rows, *self._select, *self._held])
        order = np.random.default_rng(run.seed).permutation(len(rows))[: run.limit]
        self._examples = examples_of(self._expert, [rows[i] for i in order])
        self._optimizer = torch.optim.AdamW(
            self._model.parameters().values(), lr=run.learning_rate, weight_decay=0.0
        )
        self._average = WeightAverage(self._model.parameters())
        self._standing = state.Standing()
        self._plan_steps()
        self._open_folder()

    def _serving(self, trained: ExpertFile) -> TaskExpert:
        return TaskExpert(
            self._named, self._task, None, self._tokens, ADAPTER,
            max_text_tokens=MAX_TEXT_TOKENS, trained=trained,
        )  # fmt: skip

    def _check_rows(self, rows: Sequence[Row]) -> None:
        if not (self._select and self._held):
            raise RequestError(
                f"{self._run.data}: the validation file needs two rows or more: one half chooses, "
                "the other is reported on."
            )
        if not self._extracts and any(not row.label for row in rows):
            raise RequestError(f"{self._run.task} needs rows with a label; some of the data have none.")
        known = set(self._task.label_set)
        said = {row.label for row in rows if row.label} | {e.type for row in rows for e in row.entities}
        if odd := sorted(said - known):
            raise RequestError(f"{self._run.task} has no label {odd[0]!r}, which the data names.")

    def _plan_steps(self) -> None:
        run = self._run
        self._epoch_sizes = [
            len(batches(self._examples, run.batch_tokens, run.seed, epoch))
            for epoch in range(int(np.ceil(run.epochs)))
        ]
        part = run.epochs - int(run.epochs)
        whole = sum(self._epoch_sizes) if not part else sum(self._epoch_sizes[:-1])
        self._steps = max(1, int(whole + part * self._epoch_sizes[-1]))

    def _open_folder(self) -> None:
        folder = self._run.output
        folder.mkdir(parents=True, exist_ok=True)
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self._run).items()}
        settings |= {
            "base_model": self._base_name, "dtype": self._dtype, "steps": self._steps,
            "examples": len(self._examples), "texts": self._digest(),
            "mean_of": [str(folder) for folder in self._run.mean_of] or None,
        }  # fmt: skip
        if self._run.resume:
            fixed = {name: value for name, value in settings.items() if name not in FREE_SETTINGS}
            state.check_settings(folder / SETTINGS, fixed)
            self._standing = state.load(folder, self._model, self._optimizer, self._average)
            self._forget_later_checks()
            return
        state.forget(folder)
        shutil.rmtree(folder / "adapter", ignore_errors=True)
        (folder / "metrics.jsonl").write_text("", encoding="utf-8")
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _forget_later_checks(self) -> None:
        """Of metrics.jsonl those after the step at which the run goes on, which come again."""
        path = self._run.output / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        # One that a kill cut short is after the last standing, too.
        kept = [
            line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self._standing.step
        ]
        path.write_text("".join(kept), encoding="utf-8")

    def _digest(self) -> str:
        """Of what is trained and judged on, in its order."""
        rows = [repr(row) for row in (*self._select, *self._held)]
        return hashlib.sha256(repr((self._examples, rows)).encode()).hexdigest()

    def fit(self) -> None:
        """Runs the steps that are left."""
        self._model.train()
        every = max(1, self._steps // self._run.checks)
        step = 0
        for epoch in range(len(self._epoch_sizes)):
            for indices in batches(self._examples, self._run.batch_tokens, self._run.seed, epoch):
                step += 1
                if step <= self._standing.step:
                    continue
                if step > self._steps or self._gave_up(every):
                    return
                loss = self._step([self._examples[i] for i in indices], step)
                before = self._standing.loss
                average = loss if before is None else 0.95 * before + 0.05 * loss
                self._standing.step, self._standing.loss = step, average
                self._report(
                    f"training, loss {average:.3f}, best {self._standing.best:.3f}", step / self._steps
                )
                is_check = step % every == 0 or step == self._steps
                if is_check:
                    with self._average.in_force():
                        self._check(average)
                if is_check or step % SAVE_EVERY == 0:
                    state.save(self._run.output, self._model, self._optimizer, self._average, self._standing)

    def take(self, mean: Mapping[str, torch.Tensor]) -> None:
        """Has the mean of other adapters for the best of this run."""
        for folder in self._run.mean_of:
            trained = expert_file.load(folder, self._task.label_set)
            if trained and (trained.template, trained.words) != (self._file.template, self._file.words):
                raise RequestError(f"{folder} was trained with another prompt or other words for its labels.")
        self._model.take(mean)
        self._check(None)

    def _gave_up(self, every: int) -> bool:
        idle = self._standing.step - self._standing.best_step
        return self._standing.best >= 0 and idle >= self._run.patience * every

    def _step(self, batch: list[Example], step: int) -> float:
        warm_up = max(1, min(100, self._steps // 20))
        left = 1 - (step - 1) / self._steps
        for group in self._optimizer.param_groups:
            group["lr"] = self._run.learning_rate * min(step / warm_up, max(left, 0.02))
        self._optimizer.zero_grad()
        loss = self._model.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self._model.parameters().values()), 1.0)
        self._optimizer.step()
        self._average.take(step)
        return float(loss.detach())

    def _check(self, loss: float | None) -> None:
        """Judges the adapter; the best so far is kept."""
        found = figures(self._judge(self._select, self._expert), self._select, extracts=self._extracts)
        self._model.train()
        line = {"step": self._standing.step, "loss": None if loss is None else round(loss, 4), **found}
        with (self._run.output / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        logger.info("%s", line)
        figure = found["span_f1" if self._extracts else "macro_f1"]
        if figure > self._standing.best:
            self._standing.best, self._standing.best_step = figure, self._standing.step
            self._model.save(self._run.output / "adapter", self._base_name)
            self._write_file(self._file)

    def _judge(self, rows: Sequence[Row], expert: TaskExpert) -> Answers:
        # A new engine each time: the heads that an engine keeps hold the adapter's older self.
        engine = TransformersEngine(self._model.model.eval(), self._tokens, loaded=(ADAPTER,))
        return ask(expert, engine, rows, lambda message, share: None)

    def _write_file(self, trained: ExpertFile) -> None:
        path = self._run.output / "adapter" / expert_file.NAME
        path.write_text(
            json.dumps(trained.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False)
            + "\n",
            encoding="utf-8",
        )

    def conclude(self) -> dict[str, Any]:
        """Fits the temperatures of the best adapter, and reports on the half that chose nothing."""
        self._report("calibrating", 1.0)
        self._model.restore(self._run.output / "adapter")
        fitted = self._temperatures(self._judge(self._select, self._expert))
        self._file = self._file.model_copy(update=fitted)
        reported = self._judge(self._held, self._serving(self._file))
        found = figures(reported, self._held, extracts=self._extracts)
        done = ExpertFile(
            **self._file.model_dump(), validation=found, best_step=self._standing.best_step,
            seed=self._run.seed,
        )  # fmt: skip
        self._write_file(done)
        if self._notice.is_file():  # an adapter is a derivative of its base model, and under its terms
            shutil.copyfile(self._notice, self._run.output / "adapter" / "NOTICE")
        write_report(self._run.output, asdict(self._run), found, self._base_name)
        return found

    def _temperatures(self, answers: Answers) -> dict[str, float]:
        if self._extracts:
            span, kind = entity_temperatures(answers, self._select)
            return {"span_temperature": round(span, 4), "temperature": round(kind, 4)}
        gold = index_of(np.array([row.label for row in self._select]), list(self._task.label_set))
        return {"temperature": round(fit_temperature(np.array(answers.scores, np.float32), gold), 4)}
