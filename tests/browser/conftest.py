"""A browser and an installation for all tests of this folder; without Chromium they are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.site import Site, built
from tests.browser.visit import Visit

PATIENCE_MS = 30_000
MakeVisit = Callable[..., Visit]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


# Of the package, not the session: its event loop must be gone before any asynchronous test begins.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    # Root has no sandbox of its own to give.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=arguments)
        expect.set_options(timeout=PATIENCE_MS)
        yield found
        found.close()


@pytest.fixture(scope="package")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = built(tmp_path_factory.mktemp("site"))
    try:
        yield found
    finally:
        found.stage.stop()


@pytest.fixture
def make_visit(browser: Browser, site: Site) -> Iterator[MakeVisit]:
    """Opens tabs; at the end none of them may have complained or asked another host for anything."""
    visits: list[Visit] = []

    def make(width: int = 1280, height: int = 860, **options: object) -> Visit:
        given = {"viewport": {"width": width, "height": height}, "color_scheme": "light", **options}
        context = browser.new_context(**given)  # type: ignore[arg-type]
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        visits.append(Visit(page, site.url))
        return visits[-1]

    yield make
    for visit in visits:
        visit.page.context.close()
    for visit in visits:
        visit.assert_quiet()


@pytest.fixture
def visit(make_visit: MakeVisit) -> Visit:
    """One tab."""
    return make_visit()
