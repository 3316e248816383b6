"""A whole installation for browser tests: a coordinator with the real gating weights, and two workers.

The workers answer at once by stub pools, so that no base model has to be loaded; the shipped probes answer
for real, with calibrated probabilities.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.stubs.processes import ROOT, Process, Stage

MODEL = "tiny"
REAL = "worker-0"
FAULTY = "worker-1"
PROBES = ROOT / "moe_router/gating/models/probes"


@dataclass
class Site:
    """Where it is, and what can be done to it."""

    stage: Stage
    coordinator: Process
    worker: Process
    faulty: Process

    @property
    def url(self) -> str:
        return self.coordinator.url

    def get(self, path: str) -> Any:
        answer = httpx.get(self.url + path, timeout=30, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        answer = httpx.post(self.url + path, json=body, timeout=60, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def write_mapping(self, text: str | None = None) -> None:
        """The good mapping, or any text in its place."""
        target = self.stage.folder / "expert_machine_mapping.json"
        urls = {REAL: self.worker.url, FAULTY: self.faulty.url}
        workers = {name: {"url": url, "base_model_key": MODEL} for name, url in urls.items()}
        good = json.dumps({"workers": workers, "model_to_worker": {MODEL: list(urls)}}, indent=2)
        target.write_text(good if text is None else text, encoding="utf-8")


def registry() -> dict[str, Any]:
    """The demo's tasks on one model, with the shipped probes switched on."""
    demo = json.loads((ROOT / "config/demo/experts_registry.json").read_text(encoding="utf-8"))
    for key, task in demo["tasks"].items():
        task["base_model_key"] = MODEL
        task.pop("template_path")
        task["adapter_name"] = key.partition("/")[2]
        if (PROBES / f"{key.replace('/', '__')}.json").is_file():
            task["probe"] = {"path": f"probes/{key.replace('/', '__')}"}
    return {"base_models": {MODEL: {"hf_name": "none"}}, "tasks": demo["tasks"]}


def built(folder: Path) -> Site:
    """Starts everything; returns when a request can be answered."""
    stage = Stage(folder)
    try:
        (folder / "experts_registry.json").write_text(json.dumps(registry()), encoding="utf-8")
        worker = stage.worker(WORKER_MODEL_KEY=MODEL)
        faulty = stage.faulty(model=MODEL)
        given = {
            "CONFIG_PATH": str(folder),
            "MOLE_STATE_DIR": str(folder / "state"),
            "MOLE_PROBE_INTERVAL_SECONDS": "0.3",
            "MOLE_EJECT_SECONDS": "3",  # longer than the page's pause between two looks
            "MOLE_ROUTER_POLL_SECONDS": "0.5",
        }
        site = Site(stage, stage.real_coordinator(**given), worker, faulty)
        site.write_mapping()
        worker.wait_for("/api/v1/health/ready")
        site.coordinator.wait_for("/api/v1/health/ready")
    except BaseException:
        stage.stop()
        raise
    return site
