"""What the standard variables of OpenTelemetry enable. Owns their names; the SDK reads the others."""

from __future__ import annotations

import os


def read_signals() -> frozenset[str]:
    """Which of "traces" and "metrics" the standard variables of OpenTelemetry enable. The SDK reads the others.

    Source: opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables.
    """
    read = os.environ.get
    if read("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    shared = read("OTEL_EXPORTER_OTLP_ENDPOINT")
    return frozenset(
        signal
        for signal in ("traces", "metrics")
        if (read(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or shared)
        and read(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip() in {"otlp", ""}
    )
