"""The real coordinator application over stub gating, as a process."""

from __future__ import annotations

from app.main import create_app
from tests.stubs.gating import StubGating

app = create_app(load_gating=StubGating.load)
