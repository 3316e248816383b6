"""The router page: versions of real weights go live and come back, and the plots have their numbers."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from app.storage.database import Database
from app.storage.router_versions import RouterVersions
from moe_router.gating.pipeline import MODELS
from moe_router.gating.versions import RouterWeights, pack
from moe_router.gating.weights import load
from tests.browser.site import Site
from tests.browser.visit import Visit

GATING = Path(__file__).parents[2] / "benchmarks" / "results" / "gating-quality.json"
METRICS = {
    "taught": {"rows": 640, "callers": 9, "tasks_told": 410, "answers_judged": 402},
    "guard": {"requests": 900, "candidate": {"accuracy": 0.9771, "auroc": 0.991}},
    "held_out": {"rows": 210, "task_accuracy": {"candidate": 0.9524, "live": 0.9381}},
    "reasons": [],
}
REJECTED = METRICS | {"reasons": ["guard: accuracy 0.9012, before 0.9761"]}


@pytest.fixture(scope="module")
def versions(site: Site) -> None:
    """Two versions with the shipped weights in them, one of which the judges refused."""

    async def add() -> None:
        database = Database(f"sqlite:///{site.stage.folder}/state/coordinator.sqlite3")
        encoder = json.loads((MODELS / "task.json").read_text(encoding="utf-8"))["encoder"]
        weights = RouterWeights(*(load(MODELS, n, encoder=encoder, hidden=384) for n in ("task", "qnetwork")))
        blob, meta = pack(weights)
        rows = RouterVersions(database)
        given: dict[str, Any] = {"meta": meta, "parent_id": None, "at": time.time()}
        await rows.add(blob, metrics=METRICS, **given)
        await rows.add(blob, metrics=REJECTED, state="rejected", **given)
        await database.aclose()

    with ThreadPoolExecutor(1) as thread:  # this one has Playwright's loop
        thread.submit(asyncio.run, add()).result()


def row(page: Page, version: str) -> Locator:
    return page.locator(f"#versions tr[data-key='{version}']")


def test_a_version_goes_live_and_comes_back(visit: Visit, versions: None) -> None:
    page = visit.open("/router")
    expect(row(page, "shipped").locator(".pill")).to_have_text("live")
    expect(row(page, "2")).to_contain_text("guard: accuracy 0.9012")
    expect(row(page, "1")).to_contain_text("97.7")
    row(page, "1").get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    expect(row(page, "1").locator(".pill")).to_have_text("candidate")
    row(page, "1").get_by_role("button", name="Promote").click()
    visit.assert_accessible()
    dialog.get_by_role("button", name="Promote version 1").click()
    expect(row(page, "1").locator(".pill")).to_have_text("live")
    expect(page.locator("#tiles .tile").first).to_contain_text("version 1")
    expect(page.locator("#version-changes")).to_have_text("version 1 is live")
    visit.assert_accessible()
    visit.shot("router-live")
    page.get_by_role("button", name="Take the live version back").click()
    dialog.get_by_role("button", name="Take version 1 back").click()
    expect(row(page, "1").locator(".pill")).to_have_text("rejected")
    expect(page.locator("#tiles .tile").first).to_contain_text("shipped")


def test_the_plots_tell_their_numbers(visit: Visit) -> None:
    measured = json.loads(GATING.read_text(encoding="utf-8"))
    page = visit.open("/router")
    expect(page.locator("#reliability svg")).to_have_accessible_name(
        f"Accuracy against confidence in 10 bins; the expected calibration error is {measured['ece']:.3f}"
    )
    page.locator("#reliability summary").click()
    expect(page.locator("#reliability tbody tr").first).to_contain_text("measured")
    for part in ("#reliability", "#coverage", "#cost"):
        expect(page.locator(f"{part} .source")).to_contain_text("benchmarks/results/")
    expect(page.locator("#cost figure svg")).to_have_count(4)
