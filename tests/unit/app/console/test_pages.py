"""The console's pages and assets over the application, without a browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.asgi.access import OPEN, need_of
from app.console.assets import FOLDER, MEDIA_TYPES, Assets, assets
from app.console.pages import PAGES, SECURITY_HEADERS, Page, environment, rendered
from tests.stubs.serving import serving
from tests.unit.app.api.test_service import application, problem


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(application(tmp_path)) as found:
        yield found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_a_page_and_everything_it_names_is_served(client: httpx.AsyncClient, page: Page) -> None:
    answer = await client.get(page.path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    named = set(re.findall(r'(?:src|href)="[.](/assets/[^"]+)"', answer.text))
    assert len(named) >= 6
    for path in named:
        found = await client.get(path)
        assert found.status_code == 200, path
        assert found.headers["content-type"] == MEDIA_TYPES[Path(path).suffix]
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["x-content-type-options"] == "nosniff"
    head = await client.head(page.path)
    assert (head.status_code, head.content) == (200, b"")


def test_pages_and_assets_need_no_key() -> None:
    for path in [page.path for page in PAGES] + ["/assets/0/base.css"]:
        assert need_of("GET", path) == OPEN


async def test_the_pages_need_no_gating(client: httpx.AsyncClient) -> None:
    assert (await client.get("/fleet")).status_code == 200


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2fpages.py", "%2e%2e%2fassets.py", "base.html", "x" * 3000]
)
async def test_only_assets_are_assets(client: httpx.AsyncClient, name: str) -> None:
    problem(await client.get(f"/assets/{assets().version}/{name}"), 404, "not-found")


async def test_an_older_version_gets_the_present_file_and_keeps_it_not(client: httpx.AsyncClient) -> None:
    answer = await client.get("/assets/000000000000/base.css")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"


def test_nothing_in_a_page_is_inline_or_foreign() -> None:
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'self'" in policy
    for page in PAGES:
        html = rendered(page).decode()
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|https?://", html)


def test_the_dialog_takes_no_key_that_a_header_cannot_hold() -> None:
    (pattern,) = re.findall(r'id="key-input"[^>]*pattern="([^"]+)"', rendered(PAGES[0]).decode())
    for key, fits in (
        ("mole_aB-9~!", True),
        (" k\t", True),
        ("schlüssel", False),
        ("ключ", False),
        ("a b", False),
    ):
        assert (re.fullmatch(pattern, key) is not None) is fits


def test_scripts_know_no_way_from_text_to_markup() -> None:
    for path in FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
        ):
            assert way not in text, f"{path.name}: {way}"


def test_templates_escape() -> None:
    made = environment().from_string("{{ x }}").render(x="<b>")
    assert made == "&lt;b&gt;"


def test_every_module_that_is_imported_is_there() -> None:
    for path in FOLDER.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', path.read_text(encoding="utf-8")):
            assert name in assets().files, f"{path.name} imports {name}"


def test_the_version_follows_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "notes.txt").write_text("no asset")
    first = Assets.load(tmp_path)
    assert first.files == {"a.js": (b"1", "text/javascript; charset=utf-8")}
    (tmp_path / "a.js").write_text("2")
    assert Assets.load(tmp_path).version != first.version
