"""One tab of a real browser that minds what a console must never do."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Request

from tests.stubs.processes import ROOT

SHOTS = ROOT / "build" / "screenshots"
IMPACTS = ("minor", "moderate", "serious", "critical")


class Visit:
    """A page, and everything it complained about or asked of others."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.allowed: list[str] = []
        """patterns of complaints that a test provokes"""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"pageerror: {error}"))
        page.on("request", self._request)

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def shot(self, name: str) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        target = SHOTS / f"{name}.png"
        self.page.screenshot(path=target, full_page=True)
        return target

    def assert_accessible(self) -> None:
        found = [v for v in Axe().run(self.page).response["violations"] if v["impact"] in IMPACTS]
        told = [f"{v['id']}: {v['help']}: {[n['html'][:200] for n in v['nodes'][:3]]}" for v in found]
        assert not told, "\n".join(told)

    def assert_fits(self) -> None:
        """Nothing makes the page itself scroll sideways."""
        wide = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{wide} pixels too wide"

    def assert_quiet(self) -> None:
        told = [c for c in self.complaints if not any(re.search(p, c) for p in self.allowed)]
        assert not told, "\n".join(told)
        assert not self.foreign, self.foreign

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("blob", "data") and f"{parts.scheme}://{parts.netloc}" != self.url:
            self.foreign.append(request.url)
