"""The fleet page lives: a worker that fails and an edit that is refused show up without a reload."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import FAULTY, REAL, Site
from tests.browser.visit import Visit


@pytest.fixture(autouse=True)
def mended(site: Site) -> Iterator[None]:
    """Whatever a test breaks is whole again for the next one."""
    yield
    site.write_mapping()
    site.faulty.send(signal.SIGCONT)
    httpx.post(f"{site.faulty.url}/mode/ok", trust_env=False)


def state(page: Page, worker: str) -> str:
    row = page.locator("#workers tr").filter(has_text=worker)
    return row.locator(".pill").inner_text()


def becomes(page: Page, worker: str, wanted: str) -> None:
    expect(page.locator("#workers tr").filter(has_text=worker).locator(".pill")).to_have_text(wanted)


def test_a_failing_worker_is_shown_and_its_return_too(visit: Visit, site: Site) -> None:
    body = {"text": "Zoë is in", "options": {"task": "finance/pii_detection", "language": "en"}}
    for _ in range(8):
        site.post("/api/v1/classify", body)
    page = visit.open("/fleet")
    becomes(page, REAL, "healthy")
    becomes(page, FAULTY, "healthy")
    expect(page.locator("#tiles")).to_contain_text("2 of 2")
    row = page.locator("#workers tr").filter(has_text=REAL)
    site.faulty.send(signal.SIGSTOP)  # it hangs: the port is open, nobody answers
    becomes(page, FAULTY, "down")
    expect(page.locator("#tiles")).to_contain_text("1 of 2")
    expect(page.locator("#changes")).to_have_text(f"{FAULTY} is down")
    visit.assert_accessible()
    visit.shot("fleet-failing")
    row.locator("summary").click()
    expect(row.locator("details li").first).to_have_text("finance/sentiment_analysis")
    site.faulty.send(signal.SIGCONT)
    becomes(page, FAULTY, "healthy")
    expect(row.locator("details")).to_have_attribute("open", "")  # it was never drawn anew


def test_a_worker_that_answers_nonsense_is_ejected(visit: Visit, site: Site) -> None:
    page = visit.open("/fleet")
    becomes(page, FAULTY, "healthy")
    httpx.post(f"{site.faulty.url}/mode/reset", trust_env=False)
    body = {"text": "x", "options": {"task": "finance/pii_detection", "language": "en"}}
    for _ in range(60):
        site.post("/api/v1/classify", body)  # the other worker answers what this one breaks off
        if state(page, FAULTY) == "ejected":
            break
        page.wait_for_timeout(250)
    becomes(page, FAULTY, "ejected")
    expect(page.locator("#workers tr").filter(has_text=FAULTY)).to_contain_text("tried again")


def test_the_last_refused_edit_is_told(visit: Visit, site: Site) -> None:
    page = visit.open("/fleet")
    expect(page.locator("#mapping")).to_contain_text("The last edit was taken.")
    site.write_mapping('{"workers": {}, "model_to_worker": {"tiny": "nobody"}}')
    refusal = page.locator("#mapping [role=alert]")
    expect(refusal).to_contain_text("nobody")
    becomes(page, REAL, "healthy")
    visit.assert_accessible()
    visit.shot("fleet-refused-edit")
    site.write_mapping()
    expect(refusal).to_have_count(0)


def test_nothing_is_asked_while_nobody_looks(visit: Visit) -> None:
    page = visit.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(
        "Object.defineProperty(document, 'hidden', {get: () => Boolean(window.away), configurable: true});"
    )
    page.clock.install()
    visit.open("/fleet")
    expect(page.locator("#workers tr").first).to_be_visible()
    page.evaluate("window.away = true")
    page.clock.run_for(60_000)  # a round that had begun may end
    asked.clear()
    page.clock.run_for(600_000)
    assert asked == []
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    with page.expect_request("**/api/v1/workers"):
        pass
