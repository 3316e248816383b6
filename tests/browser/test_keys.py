"""A coordinator that asks for keys, with real ones: the console asks for one and keeps it in its tab."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import MakeVisit
from tests.browser.site import Site
from tests.browser.visit import Visit
from tests.stubs.processes import ROOT, Process

STORES = "() => [JSON.stringify({...sessionStorage}), JSON.stringify({...localStorage}) + document.cookie]"


@pytest.fixture(scope="module")
def guarded(site: Site) -> Process:
    """Beside the other coordinator, over the same files and workers."""
    state = str(site.stage.folder / "guarded")
    found = site.stage.coordinator(MOLE_STATE_DIR=state, MOLE_REQUIRE_API_KEY="true")
    found.wait_for("/api/v1/health/ready")
    return found


@pytest.fixture(scope="module")
def key(site: Site, guarded: Process) -> str:
    """One that may classify and give feedback, but change nothing."""
    command = [
        sys.executable,
        "-m",
        "app.keys",
        "create",
        "browser",
        "--scope",
        "classify",
        "--scope",
        "feedback",
    ]
    environment = os.environ | {"MOLE_STATE_DIR": str(site.stage.folder / "guarded")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True, text=True)
    made = str(json.loads(done.stdout)["key"])
    guarded.wait_for("/api/v1/tasks", headers={"Authorization": f"Bearer {made}"})  # known within seconds
    return made


@pytest.fixture
def tab(make_visit: MakeVisit, guarded: Process) -> Visit:
    found = make_visit()
    found.url = guarded.url
    found.allowed += ["status of 401", "status of 403"]
    return found


def give(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_role("button", name="Use this key").click()


def test_a_key_is_asked_for_and_kept_in_this_tab_alone(tab: Visit, key: str) -> None:
    page = tab.open("/")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    tab.assert_accessible()
    tab.shot("key-dialog")
    give(page, "mole_wrong")
    expect(dialog).to_be_visible()  # asked again: that one opened nothing
    give(page, key)
    expect(page.get_by_label("Task", exact=True).locator("option")).not_to_have_count(1)
    page.get_by_role("button", name="Lost card").click()
    expect(page.locator(".stations")).to_be_visible()
    expect(page.locator("#snippet")).to_contain_text("$MOLE_API_KEY")
    assert key not in page.content()
    session, others = page.evaluate(STORES)
    assert key in session
    assert key not in others
    page.get_by_role("link", name="Fleet").click()
    expect(page.locator("#workers tr").first).to_be_visible()
    page.get_by_role("button", name="API key set").click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.get_by_role("button", name="API key", exact=True)).to_be_visible()
    assert key not in page.evaluate(STORES)[0]


def test_what_cannot_be_a_key_is_told_before_it_is_kept(tab: Visit, key: str) -> None:
    page = tab.open("/fleet")
    for wrong in ("schlüssel", "mole_a b"):
        give(page, wrong)
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.locator("#key-input").evaluate("input => input.validity.patternMismatch")
        assert wrong not in page.evaluate(STORES)[0]
    give(page, f" {key} ")
    expect(page.locator("#workers tr").first).to_be_visible()


def test_who_gives_no_key_is_asked_once_and_told(tab: Visit) -> None:
    tab.page.clock.install()
    page = tab.open("/fleet")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#notice")).to_be_visible()
    for _ in range(3):
        with page.expect_response("**/api/v1/workers") as answer:
            page.clock.run_for(5000)
        assert answer.value.status == 401
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_what_a_key_may_not_do_is_told(tab: Visit, key: str) -> None:
    page = tab.open("/jobs")
    give(page, key)
    expect(page.locator("#notice")).to_contain_text("jobs")
