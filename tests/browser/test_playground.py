"""The playground: a text, its answer, its route, the same as code, and a word about it."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import time
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import MakeVisit
from tests.browser.site import Site
from tests.browser.visit import Visit


def ask(page: Page, text: str, description: str = "", task: str = "") -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("What do you want to know?").fill(description)
    if task:
        page.locator("#options summary").click()
        page.get_by_label("Task", exact=True).select_option(task)
    page.get_by_role("button", name="Classify").click()


def stations(page: Page) -> list[str]:
    expect(page.locator(".stations")).to_be_visible()
    return page.locator(".stations .what").all_inner_texts()


def test_an_answer_with_its_probabilities_and_its_route(visit: Visit, site: Site) -> None:
    page = visit.open("/")
    page.get_by_role("button", name="Quarterly figures").click()
    answer = page.locator("#answer")
    expect(answer.locator(".under")).to_have_text("finance/sentiment_analysis")
    shares = [float(text.rstrip("%\u202f ")) for text in answer.locator(".bars .num").all_inner_texts()]
    assert len(shares) == 3
    assert abs(sum(shares) - 100) < 0.5
    assert shares == sorted(shares, reverse=True)
    best = answer.locator(".bars .best span").first.inner_text()
    assert answer.locator(".result strong").inner_text() == best
    assert stations(page)[:3] == ["Language", "Domain", "Task"]
    assert page.locator(".stations .choice").first.inner_text() == "German"
    visit.assert_accessible()
    visit.shot("playground-answer")


def test_of_many_labels_the_likeliest_are_shown(visit: Visit) -> None:
    page = visit.open("/")
    ask(page, "I lost my card yesterday.", task="finance/intent_detection")
    answer = page.locator("#answer")
    expect(answer.locator(".result strong")).to_have_text("lost_or_stolen_card")
    expect(answer.locator(".bars").first.locator("li")).to_have_count(8)
    expect(answer.locator("summary")).to_have_text("69 more")
    visit.shot("playground-labels")
    answer.locator("summary").click()
    expect(answer.locator("details .bars li")).to_have_count(69)


def test_only_the_route(visit: Visit) -> None:
    page = visit.open("/")
    page.get_by_label("Text", exact=True).fill("I lost my card on the train.")
    page.get_by_label("What do you want to know?").fill("Which banking request is this?")
    page.get_by_role("button", name="Route only").click()
    expect(page.locator("#answer .result strong")).to_have_text("finance/intent_detection")
    assert stations(page)[-1] == "Workers to ask"
    expect(page.locator(".stations .choice").last).to_contain_text("worker-0")
    expect(page.get_by_role("button", name="This is wrong")).to_have_count(0)


def test_text_from_right_to_left(make_visit: MakeVisit) -> None:
    visit = make_visit(color_scheme="dark")
    page = visit.open("/")
    page.get_by_role("button", name="خبر").click()
    assert stations(page)
    assert page.locator(".stations .choice").first.inner_text() == "Persian"
    assert page.locator("#answer .result strong").inner_text() == "sports"
    direction = "element => getComputedStyle(element).direction"
    assert page.locator("#text").evaluate(direction) == "rtl"
    assert page.locator("#description").evaluate(direction) == "rtl"
    visit.shot("playground-rtl-dark")
    ask(page, "تيم ملی فوتبال", task="finance/pii_detection")
    marked = page.locator(".marked")
    expect(marked.locator("mark")).to_have_count(1)
    assert marked.evaluate(direction) == "rtl"
    visit.assert_accessible()


def test_entities_are_marked_by_code_points(visit: Visit) -> None:
    page = visit.open("/")
    ask(page, "🙂Zoë lives in Paris 🙂", task="finance/pii_detection")
    expect(page.locator(".marked mark span")).to_have_text("🙂Zoë")
    assert page.locator(".marked").inner_text().replace("\n", "").endswith(" lives in Paris 🙂")
    page.get_by_role("button", name="This is wrong").click()
    expect(page.get_by_label("Right label")).to_be_disabled()  # entities have none
    page.get_by_role("button", name="Send what is right").click()
    expect(page.locator(".verdict [role=status]")).to_contain_text("stored")


def test_an_abstention_is_explained_and_can_be_overruled(visit: Visit) -> None:
    page = visit.open("/")
    page.get_by_role("button", name="Nothing fits").click()
    expect(page.locator(".abstained strong")).to_have_text("Nothing here answers that")
    assert stations(page)[-1] == "End"
    visit.assert_accessible()
    visit.shot("playground-abstained")
    nearest = page.locator(".near button").first
    task = nearest.inner_text()
    nearest.click()
    expect(page.locator("#answer .under")).to_have_text(task)
    expect(page.locator("#options-summary")).to_have_text(f"task {task}")


def test_one_click_says_that_it_is_wrong(visit: Visit, site: Site) -> None:
    def told(rows: int | None = None) -> dict[str, Any]:
        """The summary, which may be two seconds old, as soon as it has so many rows."""
        while True:
            found: dict[str, Any] = site.get("/api/v1/router/feedback")
            if rows in (None, found["rows"]):
                return found
            time.sleep(0.1)

    before = told()["rows"]
    page = visit.open("/")
    page.get_by_role("button", name="Quarterly figures").click()
    page.get_by_role("button", name="This is wrong").click()
    expect(page.get_by_label("Right task")).to_be_focused()
    shipped = told(before + 1)["by_version"][0]
    page.get_by_label("Right task").select_option("general/topic_classification")
    page.get_by_label("Right label").select_option("politics")
    page.get_by_role("button", name="Send what is right").click()
    expect(page.locator(".verdict [role=status]")).to_contain_text("stored")
    while (after := told())["by_version"][0] == shipped:
        time.sleep(0.1)
    assert after["rows"] == before + 1  # it took the first word's place
    assert after["by_version"][0]["tasks_told"] == shipped["tasks_told"] + 1


def test_the_same_as_code(visit: Visit) -> None:
    page = visit.open("/")
    text = 'It\'s "quoted" \\ and\nbroken $HOME `x`'
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("What do you want to know?").fill("¿Qué?")
    words = shlex.split(page.locator("#snippet").inner_text().replace("\\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    assert body == {"text": text, "description": "¿Qué?", "options": {"return_probabilities": True}}
    command = [*words, "--noproxy", "*", "--max-time", "30"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert "request_id" in json.loads(done.stdout)
    page.get_by_role("tab", name="Python").click()
    code = ast.parse(page.locator("#snippet").inner_text())
    call = next(
        n for n in ast.walk(code) if isinstance(n, ast.Call) and ast.unparse(n.func) == "mole.classify"
    )
    assert [ast.literal_eval(argument) for argument in call.args] == [text, "¿Qué?"]
    assert {k.arg: ast.literal_eval(k.value) for k in call.keywords} == {"return_probabilities": True}


def test_text_never_becomes_markup(visit: Visit) -> None:
    page = visit.open("/")
    hostile = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
    ask(page, hostile, hostile, task="finance/pii_detection")
    expect(page.locator(".marked")).to_contain_text("<b>bold</b>")
    assert page.locator("main img, #answer b:not(.sure b)").count() == 0
    assert "owned" not in page.title()


def test_a_refusal_is_told(visit: Visit) -> None:
    visit.allowed.append("status of 400")
    page = visit.open("/")
    ask(page, "   ", "x")
    expect(page.locator("#answer [role=alert]")).to_contain_text("there is no text in it")
