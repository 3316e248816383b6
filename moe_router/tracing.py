"""OpenTelemetry traces, by its standard OTEL_* variables; off unless asked for, and then it costs nothing.

The libraries are the optional extra `otel`, imported only where tracing is on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from moe_router.errors import ModelAssetError, MoleError

logger = logging.getLogger(__name__)

Kind = Literal["server", "client", "internal"]
Attribute = str | int | float | bool


class _Tracing:
    """Set once, at start."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.provider = provider
        self.tracer = provider.get_tracer("mole")
        self.propagator = TraceContextTextMapPropagator()
        self.kinds = {
            "server": SpanKind.SERVER,
            "client": SpanKind.CLIENT,
            "internal": SpanKind.INTERNAL,
        }


_tracing: _Tracing | None = None


class Span:
    """What a block can tell about itself; does nothing while tracing is off."""

    __slots__ = ("_span", "recording")

    def __init__(self, span: Any = None) -> None:
        self._span = span
        self.recording = span is not None
        """Whether anything that is told is kept."""

    def tell(self, attributes: Mapping[str, Attribute]) -> None:
        """Adds attributes, named as OpenTelemetry does."""
        if self._span is not None:
            for name, value in attributes.items():
                self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """Gives it a better name than was known at its start."""
        if self._span is not None:
            self._span.update_name(name)

    def fail(self, reason: str) -> None:
        """Marks it as failed; `reason` must hold nothing of a caller's text."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, reason))


_NO_SPAN = Span()


class _Off:
    """The block's context while tracing is off; one for all, as it holds nothing."""

    __slots__ = ()

    def __enter__(self) -> Span:
        return _NO_SPAN

    def __exit__(self, *_error: object) -> None:
        return None


_OFF = _Off()


def configure(service: str, *, exporter: str | None, endpoint: str | None, disabled: bool = False) -> None:
    """Turns tracing on where OTEL_TRACES_EXPORTER or an OTLP endpoint asks for it.

    Sampling, resource attributes, headers and batching are read by the libraries themselves.

    Args:
        service: the name where OTEL_SERVICE_NAME gives none.
        exporter: OTEL_TRACES_EXPORTER: otlp, console or none.
        endpoint: OTEL_EXPORTER_OTLP_ENDPOINT, or that of traces.
        disabled: OTEL_SDK_DISABLED.

    Raises:
        ModelAssetError: the extra `otel` is not installed, or the exporter is unknown.
    """
    wanted = exporter or ("otlp" if endpoint else "none")
    if disabled or wanted == "none":
        return
    try:
        start(service, _exporter(wanted))
    except ImportError as error:
        raise ModelAssetError(
            f"tracing is asked for, but {error.name} is not installed: pip install 'mole-router[otel]'"
        ) from error
    logger.info("traces go to the exporter %s", wanted)


def start(service: str, exporter: Any) -> None:
    """Sends all spans to an exporter of OpenTelemetry's, in batches."""
    global _tracing
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = OTELResourceDetector().detect().attributes.get(SERVICE_NAME)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: str(own or service)}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracing = _Tracing(provider)


def stop() -> None:
    """Sends what is left, and turns tracing off."""
    global _tracing
    if _tracing is not None:
        _tracing.provider.shutdown()
        _tracing = None


def span(
    name: str,
    kind: Kind = "internal",
    headers: Mapping[str, str] | None = None,
    attributes: Mapping[str, Attribute] | None = None,
) -> AbstractContextManager[Span]:
    """Traces a block; `headers` with a traceparent make it part of the caller's trace."""
    return _OFF if _tracing is None else _span(_tracing, name, kind, headers, attributes)


@contextmanager
def _span(
    tracing: _Tracing,
    name: str,
    kind: Kind,
    headers: Mapping[str, str] | None,
    attributes: Mapping[str, Attribute] | None,
) -> Iterator[Span]:
    context = tracing.propagator.extract(headers) if headers else None
    with tracing.tracer.start_as_current_span(
        name, context=context, kind=tracing.kinds[kind], record_exception=False, set_status_on_exception=False
    ) as found:
        ours = Span(found)
        ours.tell(attributes or {})
        try:
            yield ours
        except MoleError as error:
            ours.fail(error.slug)
            raise
        except Exception as error:
            ours.fail(type(error).__name__)  # never its message: it may quote the text
            raise


def outgoing(given: Mapping[str, str]) -> Mapping[str, str]:
    """The trace headers of a call: of the current span, or else the caller's own, passed through."""
    if _tracing is None:
        return given
    headers: dict[str, str] = {}
    _tracing.propagator.inject(headers)
    return headers or given


def _exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    raise ModelAssetError(f"OTEL_TRACES_EXPORTER is {name!r}; known are otlp, console and none")
