"""Jobs: a file of a thousand rows from the drop to the download, and what files can be like."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.site import Site
from tests.browser.visit import Visit

ROWS = 1000
LONG_MS = 90_000
TEXTS = (
    "Die Regierung hat gestern ein neues Wahlgesetz vorgelegt.",
    'The striker said "we fought, we won",\nand lifted the cup.',
    "فاز المنتخب الوطني في المباراة النهائية أمس.",
    "科学家在南极冰层下发现了一个巨大的湖泊。",
    "Le nouveau vaccin protège les enfants contre la rougeole.",
    "El museo de la isla recibe cada verano a miles de turistas.",
)
QUESTION = "What topic is this text about?"


def table(rows: int) -> str:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(["id", "text", "stars"])
    writer.writerows([i, TEXTS[i % len(TEXTS)], i % 5 + 1] for i in range(rows))
    return written.getvalue()


def drop(page: Page, name: str, text: str) -> None:
    given = page.evaluate_handle(
        """([name, text]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([text], name));
            return transfer;
        }""",
        [name, text],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": given})


def choose(page: Page, name: str, text: str, encoding: str = "utf-8") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "text/plain", "buffer": text.encode(encoding)})


def newest(page: Page) -> Locator:
    return page.locator("#jobs li").first


def test_a_thousand_rows_from_drop_to_download(visit: Visit, tmp_path: Path) -> None:
    page = visit.open("/jobs")
    drop(page, "news.csv", table(ROWS))
    expect(page.locator("#file-facts")).to_have_text("news.csv: 1,000 rows, 3 columns")
    expect(page.get_by_label("Column with the text")).to_have_value("text")
    expect(page.locator("#preview tbody tr")).to_have_count(5)
    expect(page.locator("#preview td.used").nth(1)).to_contain_text("we fought, we won")
    page.get_by_label("The same for every row").fill("How many stars did this customer give?")
    visit.assert_accessible()
    visit.shot("jobs-preview")
    page.get_by_role("button", name="Start the job with 1,000 rows").click()
    job = newest(page)
    expect(job.locator(".job-figures")).to_contain_text("of 1,000 rows")
    expect(job.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100", timeout=LONG_MS)
    expect(job.locator(".pill")).to_have_text("succeeded", timeout=LONG_MS)
    expect(job.locator(".job-figures")).to_have_text("1,000 of 1,000 rows")
    with page.expect_download() as lines:
        job.get_by_role("button", name="JSON Lines").click()
    found = [json.loads(line) for line in saved(lines.value, tmp_path).splitlines()]
    assert [row["index"] for row in found] == list(range(ROWS))
    assert {row["task"] for row in found} == {"retail/review_rating"}
    with page.expect_download() as cells:
        job.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(saved(cells.value, tmp_path))))
    assert [row["result"] for row in rows] == [row["result"] for row in found]


def test_the_first_results_are_shown_beside_their_texts(visit: Visit) -> None:
    page = visit.open("/jobs")
    choose(page, "news.csv", table(60))
    page.get_by_label("The same for every row").fill(QUESTION)
    page.get_by_role("button", name="Start the job with 60 rows").click()
    job = newest(page)
    expect(job.locator(".job-figures")).to_have_text("60 of 60 rows", timeout=LONG_MS)
    job.get_by_role("button", name="Preview").click()
    rows = page.locator("#result-rows tr")
    expect(rows).to_have_count(50)
    for words in ("المنتخب", "Arabic", "sports", "general/topic_classification"):
        expect(rows.nth(2)).to_contain_text(words)
    visit.assert_accessible()
    visit.shot("jobs-results")
    page.get_by_role("button", name="Close").click()
    expect(rows.first).to_be_hidden()
    page.reload()
    newest(page).get_by_role("button", name="Preview").click()
    expect(rows).to_have_count(50)
    expect(page.locator("#text-head")).to_be_hidden()  # the texts were this tab's alone


def saved(download: Any, folder: Path) -> str:
    target = folder / download.suggested_filename
    download.save_as(target)
    return target.read_text(encoding="utf-8")


def test_a_job_is_cancelled(visit: Visit, site: Site) -> None:
    page = visit.open("/jobs")
    # Nothing to choose and encoded anew each time, so that there is something left to cancel.
    lines = "".join(f'{{"text": "Vorgang {i} " , "description": "Bitte prüfen {i}"}}\n' for i in range(4000))
    choose(page, "many.jsonl", lines)
    expect(page.get_by_label("The lines are classify requests")).to_be_checked()
    page.get_by_role("button", name="Start the job").click()
    job = newest(page)
    expect(job.locator(".pill")).to_have_text("running")
    job.get_by_role("button", name="Cancel").click()
    expect(job.locator(".pill")).to_have_text("cancelled")
    expect(job.get_by_role("button", name="Cancel")).to_be_hidden()
    assert site.get("/api/v1/jobs")["jobs"][0]["state"] == "cancelled"


@pytest.mark.parametrize("second", [True, False])
def test_a_file_is_handed_in_whatever_becomes_of_it_in_the_page(visit: Visit, second: bool) -> None:
    page = visit.open("/jobs")
    held: list[Route] = []
    page.route(
        "**/api/v1/jobs",
        lambda route: held.append(route) if route.request.method == "POST" else route.continue_(),
    )
    rows = 6 if second else 7  # as no other job of these tests, so that the newest one is told by it
    choose(page, "first.csv", "text\n" + "".join(f"first {i}\n" for i in range(rows)))
    with page.expect_request(lambda request: request.method == "POST"):
        page.get_by_role("button", name=f"Start the job with {rows} rows").click()
    page.get_by_role("button", name="Discard the file").click()
    if second:
        choose(page, "second.csv", "body\nsecond\n")
        expect(page.locator("#file-facts")).to_have_text("second.csv: 1 row, 1 column")
    held.pop().continue_()
    job = newest(page)
    expect(job.locator(".job-figures")).to_have_text(f"{rows} of {rows} rows")
    expect(page.locator("#file-problem")).to_be_hidden()
    expect(page.locator("#setup")).to_be_visible(visible=second)
    job.get_by_role("button", name="Preview").click()
    expect(page.locator("#result-rows tr").first).to_contain_text("first 0")


def test_the_last_of_two_files_that_were_given_is_taken(visit: Visit) -> None:
    page = visit.open("/jobs")
    page.evaluate(
        """() => {
            const slow = new File(["text\\nslow\\n"], "slow.csv");
            window.bytes = slow.arrayBuffer();
            const held = new Promise((go) => { window.letGo = go; });
            slow.arrayBuffer = () => held.then(() => window.bytes);
            const drop = (file) => {
                const event = new Event("drop", { cancelable: true });
                event.dataTransfer = { files: [file] };
                document.getElementById("drop").dispatchEvent(event);
            };
            drop(slow);
            drop(new File(["text\\nquick\\n"], "quick.csv"));
        }"""
    )
    expect(page.locator("#file-facts")).to_have_text("quick.csv: 1 row, 1 column")
    page.evaluate("async () => { letGo(); await bytes; await new Promise((go) => setTimeout(go)); }")
    expect(page.locator("#file-facts")).to_have_text("quick.csv: 1 row, 1 column")
    expect(page.locator("#preview td")).to_have_text(["quick"])


def test_json_lines_with_columns_of_their_own(visit: Visit, site: Site) -> None:
    page = visit.open("/jobs")
    product = {"title": "真空断熱ボトル 500ml", "query": "保温できる水筒", "price": 12}
    choose(page, "products.jsonl", json.dumps(product, ensure_ascii=False) + "\n")
    page.get_by_label("Column with the text").select_option("title")
    page.get_by_label("Task", exact=True).select_option("retail/product_relevance")
    page.get_by_label("query", exact=True).check()
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.post_data or "") if r.method == "POST" else None)
    with page.expect_response("**/api/v1/jobs") as answer:
        page.get_by_role("button", name="Start the job with 1 row").click()
    assert answer.value.status == 202
    expect(newest(page).locator(".pill")).to_have_text("succeeded")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.jsonl", '{"text": "a"}\n{"text"\n', "Line 2 is no JSON"),
        ("x.jsonl", "[1]\n", "Line 1 is no object"),
        ("x.csv", "text\n", "There are no rows"),
        ("x.csv", 'text\n"never closed\n', "A quote is opened and never closed"),
        ("x.csv", "a,a\n1,2\n", "Two columns are named"),
        ("x.csv", "text,n\nfine,1\n\nwell, well,2\n", "Row 4 has 3 cells, but the header has 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(visit: Visit, name: str, text: str, said: str) -> None:
    page = visit.open("/jobs")
    choose(page, name, text)
    expect(page.locator("#file-problem")).to_contain_text(said)
    expect(page.locator("#setup")).to_be_hidden()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_that_is_not_utf_8_is_refused(visit: Visit, encoding: str) -> None:
    page = visit.open("/jobs")
    choose(page, "x.csv", "text\nGrüße\n", encoding)
    expect(page.locator("#file-problem")).to_contain_text("This file is not UTF-8")
    expect(page.locator("#setup")).to_be_hidden()


def test_a_blank_line_is_a_row_of_one_column_but_not_at_the_end(visit: Visit) -> None:
    page = visit.open("/jobs")
    choose(page, "one.csv", "text\n\na\n\nb\n\n\n")
    expect(page.locator("#file-facts")).to_have_text("one.csv: 4 rows, 1 column")
    choose(page, "two.csv", "text,n\n\na,1\n\n")
    expect(page.locator("#file-facts")).to_have_text("two.csv: 1 row, 2 columns")


def test_csv_is_read_as_pythons_own_module_reads_it(visit: Visit) -> None:
    page = visit.open("/jobs")
    cases = [
        "a,b\n1,2\n",
        "a,b\r\n1,2",
        '"a","b"\n"x ""y"" z","line\nbreak"\n',
        "a,b\n1,\n,2\n",
        'a\n""\n"x"\n',
        'a,b\n"",""\n',
        'a\n\n""\r\n\r\nx\n\n',
        "a;b\n1,5;2\n",
        "a\tb\n1\t2\n",
    ]
    address = page.locator("script[src$='jobs.js']").evaluate("script => script.src")
    read = """async ([address, text, separator]) => (await import(address)).parse(text, separator)"""
    for text in cases:
        separator = next(s for s in ";\t," if s in text.partition("\n")[0] or s == ",")
        found = page.evaluate(read, [str(address).replace("jobs.js", "csv.js"), text, separator])
        assert found == list(csv.reader(io.StringIO(text, newline=""), delimiter=separator)), text
