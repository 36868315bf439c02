"""Traces and metrics for operators, sent by OTLP/HTTP as the standard `OTEL_*` variables say.

Owns whether anything is sent. Unless it is asked for and the extra `[otel]` is installed, nothing is sent and nothing
is imported beyond the API that the MCP SDK brings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from mj_mcp.events import Observer, ignore

log = structlog.get_logger("mj_mcp.telemetry")


@contextmanager
def exporting(signals: frozenset[str]) -> Iterator[Observer]:
    """Send these signals ("traces", "metrics") until the block ends. Returns the observer that counts events.

    A missing collector or a wrong variable disables telemetry, never the server.
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
