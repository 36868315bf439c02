"""The OpenTelemetry SDK: two pipelines, one for spans and one for metrics, from their start to their flush.

Owns the providers and what a span contains. The SDK itself reads where to send, how often, how much and under which
name from `OTEL_*`. Does not know what is counted.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Status

from mj_mcp import __version__
from mj_mcp.events import Observer, ignore
from mj_mcp.telemetry.meters import Meters

log = structlog.get_logger("mj_mcp.telemetry")

FLUSH_SECONDS = 5.0
"""How long shutdown waits for the collector, over both pipelines."""


@dataclass(frozen=True, slots=True)
class Pipelines:
    """The running pipelines: the observer, and how to end each of them."""

    observe: Observer
    ends: tuple[Callable[[], None], ...]

    def flush(self) -> None:
        """Send what is left, within `FLUSH_SECONDS`. A collector that does not answer delays shutdown no longer."""
        threads = [threading.Thread(target=end, daemon=True) for end in self.ends]
        for thread in threads:
            thread.start()
        until = time.monotonic() + FLUSH_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            log.warning("telemetry_not_flushed", seconds=FLUSH_SECONDS)


def begin(signals: frozenset[str]) -> Pipelines:
    """Start the pipelines that `signals` names.

    Raises:
        ValueError: an `OTEL_*` variable has a value that the SDK cannot use.
    """
    ours = {"service.name": "mj-mcp", "service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    # What is set in the environment wins.
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    observe: Observer = ignore
    ends: list[Callable[[], None]] = []
    # No hook at interpreter exit: `flush` has a time limit that we choose, and the SDK's own hook has none.
    if "traces" in signals:
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(_Wordless()))
        trace.set_tracer_provider(tracers)
        ends.append(tracers.shutdown)
    if "metrics" in signals:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        observe = Meters(meters.get_meter("mj_mcp", __version__)).observe
        ends.append(partial(meters.shutdown, FLUSH_SECONDS * 1000))
    return Pipelines(observe, tuple(ends))


class _Wordless(OTLPSpanExporter):
    """Spans without exception messages, which can hold a prompt or a link. The log has them, redacted."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them."""
        return super().export([_wordless(span) for span in spans])


def _wordless(span: ReadableSpan) -> ReadableSpan:
    if not span.events and span.status.description is None:
        return span
    return ReadableSpan(
        span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
