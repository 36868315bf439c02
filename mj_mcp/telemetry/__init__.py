"""Traces and metrics for operators, sent by OTLP/HTTP where the standard `OTEL_*` variables say.

Owns whether anything is sent at all. Where it is not asked for, or the extra `[otel]` is not installed, nothing beyond
the API that the MCP SDK brings is imported, nothing is sent, and the server starts and runs as if this were not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from mj_mcp.events import Observer, ignore

log = structlog.get_logger("mj_mcp.telemetry")


@contextmanager
def exporting(signals: frozenset[str]) -> Iterator[Observer]:
    """Send these signals ("traces", "metrics") until the block ends; gives the observer that counts for them.

    A collector that is missing, or variables that make no sense, cost the telemetry and never the server.
    """
    if not signals:
        yield ignore
        return
    try:
        from mj_mcp.telemetry.otlp import begin  # noqa: PLC0415 - 0.2 s that only those pay who asked for it

        pipelines = begin(signals)
    except ImportError:
        log.warning("telemetry_unavailable", reason="OTEL_EXPORTER_OTLP_ENDPOINT is set; it needs the extra [otel]")
        yield ignore
        return
    except ValueError as failure:
        log.warning("telemetry_unavailable", reason=f"an OTEL_* variable is not usable: {failure}")
        yield ignore
        return
    try:
        yield pipelines.observe
    finally:
        pipelines.flush()
