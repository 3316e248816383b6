from __future__ import annotations

import pytest

from app.settings import Settings
from app.storage.engine import async_engine, read_url
from moe_router.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "kept", "driver"),
    [
        ("sqlite:///state/x.sqlite3", "sqlite:///state/x.sqlite3", "aiosqlite"),
        ("sqlite+aiosqlite:////tmp/x", "sqlite:////tmp/x", "aiosqlite"),
        ("postgres://u:p@h:5/d", "postgresql://u:p@h:5/d", "psycopg"),
        ("postgresql://u:p@h/d?sslmode=require", "postgresql://u:p@h/d?sslmode=require", "psycopg"),
        ("postgresql+psycopg://h/d", "postgresql://h/d", "psycopg"),
    ],
)
def test_plain_urls_get_an_asynchronous_driver(given: str, kept: str, driver: str) -> None:
    url = read_url(given)
    assert url.render_as_string(hide_password=False) == kept
    assert async_engine(url).driver == driver


@pytest.mark.parametrize(
    "given",
    ["", "nonsense", "mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "postgresql://h:secret/d"],
)
def test_unusable_urls_are_refused_without_their_password(given: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_url(given)
    assert "DATABASE_URL" in raised.value.detail
    assert "secret" not in raised.value.detail


def test_the_default_is_a_file_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLE_STATE_DIR", "somewhere")
    assert Settings().database == "sqlite:///somewhere/coordinator.sqlite3"
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d")
    settings = Settings()
    assert settings.database == "postgresql://u:secret@h/d"
    assert "secret" not in repr(settings)
