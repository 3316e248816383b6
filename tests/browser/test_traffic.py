"""The traffic page counts what was just asked."""

from __future__ import annotations

import httpx
from playwright.sync_api import Page, expect

from tests.browser.site import Site
from tests.browser.visit import Visit


def tile(page: Page, name: str) -> str:
    found = page.locator("#tiles .tile").filter(has_text=name)
    expect(found).to_be_visible()
    return found.locator("dd").inner_text()


def test_what_was_asked_is_drawn(visit: Visit, site: Site) -> None:
    page = visit.open("/traffic")
    before = int(tile(page, "Requests").replace(",", ""))
    for _ in range(3):
        site.post("/api/v1/classify", {"text": "Les ventes montent.", "description": "Good for investors?"})
    refused = httpx.post(f"{site.url}/api/v1/classify", json={}, trust_env=False)
    assert refused.status_code == 400
    expect(page.locator("#tiles .tile").first.locator("dd")).to_have_text(f"{before + 4:,}")
    expect(page.locator("#languages .legend")).to_contain_text("French")
    expect(page.locator("#tasks .legend")).to_contain_text("finance/sentiment_analysis")
    expect(page.locator("#requests .legend")).to_contain_text("refused (4xx)")
    expect(page.locator("#latency svg")).to_be_visible()
    page.locator("#requests summary").click()
    expect(page.locator("#requests tbody tr").last).to_be_visible()
    page.get_by_role("button", name="10 min").click()
    expect(page.get_by_role("button", name="10 min")).to_have_attribute("aria-pressed", "true")
    visit.assert_accessible()
    visit.shot("traffic-asked")
