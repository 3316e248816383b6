"""Spans, and that they reach a collector of OTLP."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from moe_router import tracing
from moe_router.errors import ModelAssetError, NoWorkerError

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.start("test", exporter)
    yield exporter
    tracing.stop()


def test_off_it_passes_the_callers_headers_through() -> None:
    with tracing.span("x", "server", PARENT) as span:
        span.tell({"a": 1})
        span.rename("y")
        span.fail("z")
        assert tracing.outgoing(PARENT) is PARENT


def test_spans_join_the_callers_trace(spans: InMemorySpanExporter) -> None:
    with tracing.span("in", "server", PARENT) as server, tracing.span("out", "client"):
        server.rename("POST /x")
        server.tell({"http.route": "/x"})
        sent = tracing.outgoing(PARENT)["traceparent"]
    tracing.stop()
    out, server_span = spans.get_finished_spans()
    assert sent == f"00-{TRACE}-{out.context.span_id:016x}-01"
    assert (server_span.name, server_span.attributes) == ("POST /x", {"http.route": "/x"})
    assert server_span.parent is not None
    assert f"{server_span.parent.span_id:016x}" == "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(NoWorkerError("secret text"), "no-worker"), (ValueError("secret text"), "ValueError")],
)
def test_a_failure_is_marked_and_tells_no_text(
    spans: InMemorySpanExporter, error: Exception, reason: str
) -> None:
    with pytest.raises(type(error)), tracing.span("x"):
        raise error
    tracing.stop()
    (found,) = spans.get_finished_spans()
    assert found.status.description == reason
    assert "secret" not in found.to_json()


def test_it_is_off_by_default_and_where_it_is_disabled() -> None:
    for given in ({}, {"exporter": "none"}, {"endpoint": "http://x", "disabled": True}):
        tracing.configure("x", **{"exporter": None, "endpoint": None, **given})  # type: ignore[arg-type]
        assert tracing._tracing is None
    with pytest.raises(ModelAssetError, match="carrier-pigeon"):
        tracing.configure("x", exporter="carrier-pigeon", endpoint=None)


def test_importing_it_needs_no_opentelemetry() -> None:
    code = "import sys, moe_router.tracing; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_otlp_reaches_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "named-by-operator")
        tracing.configure("mole-test", exporter=None, endpoint=endpoint)
        with tracing.span("the span"):
            pass
        tracing.stop()
        server.shutdown()
    assert received[0][0] == "/v1/traces"
    assert b"the span" in received[0][1]
    assert b"named-by-operator" in received[0][1]
