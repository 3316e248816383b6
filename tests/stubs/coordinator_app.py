"""The real coordinator application over stub gating, as a process."""

from __future__ import annotations

from tests.stubs.gating import StubGating  # isort: skip - it may stand in for gating types
from app.main import create_app

app = create_app(load_gating=StubGating.load)
