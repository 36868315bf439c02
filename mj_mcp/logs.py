"""Structured logs: one JSON line per event on stderr, and the one place where secrets are taken out.

Owns structlog's configuration and redaction. The standard library's loggers (the SDK's, httpx's) join in.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal

import structlog

HIDDEN = "[redacted]"

_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{6,}")
_QUERY = re.compile(r"(https?://[^\s?#\"'<>]+)\?[^\s\"'<>#]+")


def redactor(*secrets: str) -> Callable[[str], str]:
    """A function that takes these secrets out of a text."""
    hidden = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in hidden:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text

    return redact


def configure(*, level: str, style: Literal["json", "console", "auto"], redact: Callable[[str], str]) -> None:
    """Send every log of this process to stderr, redacted. Call before the SDK is set up: it would install its own."""

    def scrub(value: object) -> object:
        if isinstance(value, str):
            return _QUERY.sub(rf"\1?{HIDDEN}", _BEARER.sub(rf"\1{HIDDEN}", redact(value)))
        if isinstance(value, Mapping):
            return {key: scrub(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [scrub(item) for item in value]
        return value if isinstance(value, int | float | bool | None) else scrub(str(value))

    def scrubbed(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # What structlog itself carries for the formatter begins with an underscore.
        return {key: value if key.startswith("_") else scrub(value) for key, value in event.items()}

    pretty = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        scrubbed,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if pretty else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # One line per request of ours says more than httpx's own, which would repeat it with the link's signature.
    for name in ("httpx", "httpcore", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
