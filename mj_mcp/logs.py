"""Structured logs: one JSON line per event on stderr. Secrets are removed here, and nowhere else.

Owns structlog's configuration and redaction. The standard library's loggers (the SDK's, httpx's) and Python's warnings
go through it too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Literal, TextIO
from urllib.parse import quote

import structlog

HIDDEN = "[redacted]"

_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{6,}")
_QUERY = re.compile(r"(https?://[^\s?#\"'<>]+)\?[^\s\"'<>#]+")
_SIGNED = re.compile(r"(?i)([?&](?:[\w-]*sig(?:nature)?|[\w-]*token|[\w-]*key|hm|exp?)=)[^\s&\"'<>#]+")
"""A signed link without its host, as in a request line."""

# We log one line per request of our own. httpx would repeat it with the link's signature, and the SDK's line per HTTP
# session shows the session's id.
_QUIET = ("httpx", "httpcore", "PIL", "mcp.server.streamable_http", "mcp.server.streamable_http_manager")


def redactor(*secrets: str) -> Callable[[str], str]:
    """A function that removes these secrets from a text, even where they are escaped for JSON, Python or a URL."""
    forms = {form for secret in secrets if secret for form in _forms(secret)}
    hidden = sorted(forms, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in hidden:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text

    return redact


def _forms(secret: str) -> set[str]:
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")}


def configure(*, level: str, style: Literal["json", "console", "auto"], redact: Callable[[str], str]) -> None:
    """Send every log of this process to stderr, redacted. Call it before the SDK configures logging of its own."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _scrubber(redact),
    ]
    renderer = _renderer(pretty=style == "console" or (style == "auto" and sys.stderr.isatty()))
    stream = sys.stderr
    # Our own lines bypass the standard library: it would double the cost of the one line per call.
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda name="": _Lines(name, stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Lines:
    """Writes our own lines. If the host closes the stream, lines are lost but no call fails."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


def _renderer(*, pretty: bool) -> Any:  # noqa: ANN401 - one of structlog's renderers
    if not pretty:
        return structlog.processors.JSONRenderer()
    # The traceback is text already, so that secrets could be removed from it.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _scrub_text(text: str) -> str:
    """`text` without bearer tokens and signatures. The patterns run only where they can match."""
    if "earer" in text.lower():
        text = _BEARER.sub(rf"\1{HIDDEN}", text)
    if "?" in text or "&" in text:
        text = _SIGNED.sub(rf"\1{HIDDEN}", _QUERY.sub(rf"\1?{HIDDEN}", text))
    return text


def _scrubber(redact: Callable[[str], str]) -> Callable[..., MutableMapping[str, Any]]:
    def scrub(value: object) -> object:
        if isinstance(value, str):
            return _scrub_text(redact(value))
        if isinstance(value, Mapping):
            return {str(scrub(str(key))): scrub(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [scrub(item) for item in value]
        return value if isinstance(value, int | float | bool | None) else scrub(str(value))

    def scrubbed(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # structlog's own keys for the formatter begin with an underscore.
        return {key: value if key.startswith("_") else scrub(value) for key, value in event.items()}

    return scrubbed
