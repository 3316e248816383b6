"""Every page in three shapes: it draws, fits, is accessible, and asks nobody else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from app.console.pages import PAGES
from tests.browser.conftest import MakeVisit
from tests.browser.site import Site

SHAPES: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"width": 390, "height": 844, "has_touch": True},
}
DRAWN = {
    "playground": "#examples button",
    "fleet": "#workers tr",
    "jobs": "#no-jobs:not([hidden]), #jobs li",
    "router": "#cost svg",
    "traffic": "#tiles .tile",
}


@pytest.fixture(scope="module")
def asked(site: Site) -> None:
    """Something to show."""
    for text in ("Der Umsatz stieg.", "Les ventes montent.", "Sales went up."):
        site.post("/api/v1/classify", {"text": text, "description": "Good or bad news for investors?"})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("page_name", DRAWN)
def test_a_page(make_visit: MakeVisit, asked: None, page_name: str, shape: str) -> None:
    (known,) = [page for page in PAGES if page.name == page_name]
    visit = make_visit(**SHAPES[shape])
    page = visit.open(known.path)
    expect(page.locator(DRAWN[page_name]).first).to_be_visible()
    expect(page.locator("#health")).to_contain_text("ready")
    assert page.title() == f"{known.title} · MoLE"
    assert page.locator("h1").all_inner_texts() == [known.title]
    assert page.locator("nav [aria-current=page]").inner_text() == known.title
    visit.assert_fits()
    visit.assert_accessible()
    visit.shot(f"{page_name}-{shape}")


def test_colours_are_chosen_and_kept(make_visit: MakeVisit) -> None:
    page = make_visit().open("/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    button = page.locator("#theme-button")
    expect(button).to_have_accessible_name("Colours: as the system")
    button.click()
    assert page.evaluate(background) == light
    button.click()
    expect(button).to_have_accessible_name("Colours: dark")
    dark = page.evaluate(background)
    assert dark != light
    page.get_by_role("link", name="Traffic").click()
    expect(page.locator("h1")).to_have_text("Traffic")
    assert page.evaluate(background) == dark


def test_no_inline_code_runs_and_no_other_host_is_named(make_visit: MakeVisit) -> None:
    visit = make_visit()
    visit.allowed.append("Content Security Policy|TrustedHTML|Trusted")
    page = visit.open("/")
    page.evaluate(
        "() => { const s = document.createElement('script'); s.id = 'x'; document.body.append(s); }"
    )
    blocked = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return false; } catch { return true; } }"
    )
    assert blocked
    for known in PAGES:
        html = page.request.get(visit.url + known.path).text()
        assert not re.search(r"<script(?![^>]*\ssrc=)", html)
        assert not re.search(r"\son[a-z]+=|style=|https?://", html)
