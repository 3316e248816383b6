"""What is said of a key, an address or an answer that is unusable, and what is kept to oneself."""

from __future__ import annotations

import traceback

import httpx
import pytest

from mole import Mole, MoleConnectionError, Retry
from mole.cli.console import CommandError
from mole.cli.coordinator_process import coordinator_command
from mole.errors import UnusableKeyError
from tests.unit.mole.test_command import mole


def test_a_key_that_was_read_with_its_lines_end_is_sent_without(coordinator):
    with Mole(coordinator.url, api_key="k-1\n") as client:
        client.classify("x")
    assert {k.lower(): v for k, v in coordinator.asked[0][3].items()}["authorization"] == "Bearer k-1"


@pytest.mark.parametrize("key", ["se\ncret", "se cret", "secrét", "se\0cret"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_told(key: str):
    with pytest.raises(UnusableKeyError) as raised:
        Mole(api_key=key)
    assert "cret" not in "".join(traceback.format_exception_only(raised.value))


def test_the_command_calls_such_a_key_wrong_usage():
    for verb in (["tasks"], ["bench", "-n", "1"]):
        done = mole(*verb, MOLE_API_KEY="se\ncret")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "MOLE_API_KEY" in done.stderr
        assert "cret" not in done.stderr


def test_a_password_in_the_address_is_not_told():
    with Mole("http://me:secret@127.0.0.1:9/", retry=Retry(attempts=1)) as client:
        assert client.base_url == "http://127.0.0.1:9"
        with pytest.raises(MoleConnectionError) as raised:
            client.tasks()
    assert "secret" not in f"{raised.value} {raised.value.url}"


def test_a_header_that_http_refuses_is_not_quoted():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError("Illegal header value b'Bearer secret'", request=request)

    with (
        Mole(transport=httpx.MockTransport(refuse)) as client,
        pytest.raises(MoleConnectionError, match="no valid HTTP"),
    ):
        client.tasks()


def test_a_damaged_body_is_a_connection_error(coordinator):
    coordinator.answers(b"no gzip", Content_Encoding="gzip", Content_Type="application/x-ndjson")
    with Mole(coordinator.url) as client:
        with pytest.raises(MoleConnectionError):
            client.tasks()
        with pytest.raises(MoleConnectionError):
            list(client.job_results("j"))


def test_a_proxy_of_the_environment_is_not_asked_for_what_is_on_this_machine(coordinator, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody is there
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Mole(coordinator.url) as mole:
        mole.classify("x")
    with Mole("http://mole.example", retry=Retry(attempts=1)) as mole, pytest.raises(MoleConnectionError):
        mole.classify("x")


def test_a_folder_of_the_caller_holds_no_module_of_ours(tmp_path, monkeypatch):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('somebody else has run')")
    (tmp_path / "random.py").write_text("raise SystemExit('somebody else has run')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match="there is no database"):  # which app.keys says itself
        coordinator_command("app.keys", ["list"], database=f"sqlite:///{tmp_path}/keys.sqlite3")
