"""The console by keyboard alone."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.visit import Visit

NAME = """() => {
    const e = document.activeElement;
    const label = e.labels?.[0]?.firstChild?.textContent;
    return (e.getAttribute('aria-label') ?? label ?? e.textContent).trim();
}"""


def tab_to(page: Page, wanted: str, most: int = 40) -> None:
    """Presses Tab until that has the focus, and checks that whatever has it can be seen to have it."""
    for _ in range(most):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        parent = page.evaluate("getComputedStyle(document.activeElement.parentElement).outlineStyle")
        assert "none" not in (outline, parent) or outline != parent, page.evaluate(NAME)
        if str(page.evaluate(NAME)).startswith(wanted):
            return
    raise AssertionError(f"{wanted} is never reached")


def test_from_the_first_tab_to_feedback(visit: Visit) -> None:
    page = visit.open("/")
    page.keyboard.press("Tab")
    assert page.evaluate(NAME) == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    tab_to(page, "Text")
    page.keyboard.type("Der Umsatz stieg im dritten Quartal um zwölf Prozent.")
    tab_to(page, "What do you want to know?")
    page.keyboard.type("Is this good or bad news for investors?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#answer .result strong")).to_be_visible()
    tab_to(page, "This is wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Right task")).to_be_focused()
    tab_to(page, "Right label")
    page.keyboard.type("neutral")
    expect(page.get_by_label("Right label")).to_have_value("neutral")
    tab_to(page, "Send what is right")
    page.keyboard.press("Enter")
    expect(page.locator(".verdict [role=status]")).to_contain_text("stored")
    tab_to(page, "curl")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.locator("#snippet")).to_contain_text("from mole import Mole")


def test_dialogs_close_by_escape_and_give_the_focus_back(visit: Visit) -> None:
    page = visit.open("/jobs")
    tab_to(page, "API key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="API key")).to_be_focused()


def test_a_file_is_chosen_by_keyboard(visit: Visit) -> None:
    page = visit.open("/jobs")
    # Well before the key: Chromium cancels a chooser that nobody waits for yet.
    page.on("filechooser", lambda _: None)
    page.locator("#file").focus()
    expect(page.locator("#file")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files({"name": "a.csv", "mimeType": "text/csv", "buffer": b"text\nGreat phone!\n"})
    expect(page.get_by_label("Column with the text")).to_be_focused()
    tab_to(page, "Start the job with 1 row")
    page.keyboard.press("Enter")
    expect(page.locator("#jobs li .pill").first).to_have_text("succeeded")
