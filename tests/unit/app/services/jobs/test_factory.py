"""The parts of jobs as the coordinator puts them together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.services.jobs import factory as module
from app.services.jobs.runner import JobRunner
from tests.stubs.serving import serving
from tests.unit.app.api.test_service import application


async def test_uploads_and_items_are_no_requests_that_somebody_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Callable[[], int]] = []

    class Runner(JobRunner):
        def __init__(self, *parts: Any, interactive: Callable[[], int], **more: Any) -> None:
            super().__init__(*parts, interactive=interactive, **more)
            told.append(interactive)

    monkeypatch.setattr(module, "JobRunner", Runner)
    app = application(tmp_path)
    async with serving(app):
        [interactive] = told
        admission, desk = app.state.runtime.admission, app.state.jobs
        with admission.request("one who waits"):
            assert interactive() == 1
            with admission.request("an upload"), desk._uploads.request("an upload"):
                assert interactive() == 1
            with admission.request("an item"):
                monkeypatch.setattr(Runner, "running", 1)
                assert interactive() == 1
        assert interactive() == 0
