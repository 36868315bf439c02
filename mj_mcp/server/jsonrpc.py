"""Reads one JSON-RPC message from the bytes of a line or an HTTP body, or gives the error to answer with.

Owns what is repaired (a byte-order mark, half of a surrogate pair) and the error texts. Knows nothing of pipes, of
HTTP or of connections.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    RequestId,
    jsonrpc_message_adapter,
)

NOT_JSON = "Parse error: the message is not JSON in UTF-8, or is nested too deeply."
BATCH = "Invalid request: a batch is not part of the protocol since 2025-06-18. Send each message separately."
NO_MESSAGE = (
    'Invalid request: a message is one JSON object with "jsonrpc": "2.0" and a "method" that is a string; its "id" is '
    'a string or an integer, its "params" an object. It may be nested 200 levels deep.'
)


@dataclass(frozen=True, slots=True)
class Read:
    """A message, and its bytes in a form that every JSON reader reads alike."""

    message: JSONRPCMessage
    raw: bytes


def read(raw: bytes) -> Read | JSONRPCError:
    """Read one message. If it is not valid, the result is the error to answer with.

    The error has the id of the request if it can be read, else null.
    """
    return _understood(raw) or _repaired(raw)


def write(message: JSONRPCMessage) -> bytes:
    """The message as a line, without the line end."""
    try:
        return jsonrpc_message_adapter.dump_json(message, by_alias=True, exclude_unset=True)
    except ValueError:  # half of a surrogate pair: a file name need not be UTF-8
        return _text(jsonrpc_message_adapter.dump_python(message, by_alias=True, exclude_unset=True)).encode()


def refusal(code: int, words: str, request_id: RequestId | None = None) -> JSONRPCError:
    """The answer to a line that is not a message."""
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=words))


def _understood(raw: bytes) -> Read | None:
    try:
        message = jsonrpc_message_adapter.validate_json(raw, by_name=False)
    except ValueError:
        return None
    # The SDK would treat a request with an id that is null or a fraction as a notification and not answer it.
    if isinstance(message, JSONRPCNotification) and "id" in json.loads(raw):
        return None
    return Read(message, raw)


def _repaired(raw: bytes) -> Read | JSONRPCError:
    """What Python's more lenient reader accepts: byte-order marks, and half of a surrogate pair."""
    try:
        text = _text(json.loads(raw))
        value = json.loads(text)
    except (ValueError, RecursionError):
        return refusal(PARSE_ERROR, NOT_JSON)
    return _understood(text.encode()) or _refused(value)


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON
    """JSON, with U+FFFD for every half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _refused(value: Any) -> JSONRPCError:  # noqa: ANN401 - any JSON
    if isinstance(value, list):
        return refusal(INVALID_REQUEST, BATCH)
    # The id of a result is one of ours, and the client may have a request with the same one.
    asked = isinstance(value, dict) and not {"result", "error"} & value.keys()
    request_id = value.get("id") if asked else None
    known = isinstance(request_id, str | int) and not isinstance(request_id, bool)
    return refusal(INVALID_REQUEST, NO_MESSAGE, request_id if known else None)
