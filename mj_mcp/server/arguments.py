"""Arguments as hosts send them, read by the tool's published schema.

Values are coerced where that is unambiguous; all problems are reported at once, in our own words. Owns what is left
out, what is coerced and what is refused. Knows no tool.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mj_mcp.errors import InvalidRequest, shortened

Schema = Mapping[str, Any]

ABSENT_WORDS = frozenset({"null", "None", "undefined"})
"""Texts that mean "left out": models write them, and strict hosts pass them on."""

VERBATIM = frozenset({"prompt", "button"})
"""Arguments that are taken exactly as written: a prompt may ask for a picture of the word "null"."""

HOST_FIELDS = {
    # n8n's tool agent passes its own fields along (n8n-io/n8n, issues on MCP client tools, 2025-2026).
    "toolCallId": "n8n",
    "sessionId": "n8n",
    "action": "n8n",
    "chatInput": "n8n",
    # Gemini CLI adds its scheduler's flag to every tool (google-gemini/gemini-cli, 2026).
    "wait_for_previous": "Gemini CLI",
    # Cline's focus chain asks models for a checklist with every tool call (cline/cline, 2025).
    "task_progress": "Cline",
    # OpenHands asks models to rate each call (All-Hands-AI/OpenHands, 2025).
    "security_risk": "OpenHands",
    # LangChain and its relatives add these; models copy "thought" from agent prompts.
    "tool_call_id": "LangChain",
    "runtime": "LangChain",
    "thought": "agent prompts",
}
"""Fields that hosts are known to add, and which host does. They are dropped, by exact name, if the tool has no such
argument. Source: public reports, November 2026."""

EMPTY_HOST_FIELDS = {"kwargs": "CrewAI and smolagents"}
"""The same, but only while they are empty: a value in them may be an option that was meant."""

MEANT = {"aspect": "aspect_ratio", "ar": "aspect_ratio", "id": "task_id", "timeout": "wait_seconds"}
"""Names that agents tried, where the nearest name by spelling is a different one."""

MOST_PROBLEMS = 12
"""The most problems in one answer. A call with more was not written by hand."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a call in the types of the schema. Arguments that were left out are not in `values`."""

    values: dict[str, Any]
    dropped: tuple[str, ...] = ()
    """Fields that the host added."""
    zeros: tuple[str, ...] = ()
    """Options left out because a strict host had filled in every number (`drop_zeros`)."""


def read_arguments(
    tool: str,
    given: Mapping[str, Any],
    schema: Schema,
    *,
    drop_zeros: bool = False,
    check: Callable[[Mapping[str, Any]], Sequence[str]] | None = None,
) -> Arguments:
    """Read the arguments of one call by the tool's input schema.

    null, "" and the words of `ABSENT_WORDS` leave an optional argument out. With `drop_zeros`, so does a 0 if every
    number of the schema is given (except `wait_seconds`): a host with strict schemas has to fill in each. If there is
    a problem, `check` adds the problems of the values that can be read.

    Raises:
        InvalidRequest: names every problem of the call.
    """
    known: Mapping[str, Schema] = schema["properties"]
    required: list[str] = schema.get("required", [])
    dropped = tuple(name for name in given if name not in known and _is_a_hosts(name, given[name]))
    present = {
        name: value
        for name, value in given.items()
        if name not in dropped and not (name not in required and _is_absent(name, value))
    }
    zeros = _filled_zeros(present, known) if drop_zeros else ()
    problems = [_unknown(tool, name, known) for name in present if name not in known]
    problems += [f"`{name}` must be given." for name in required if present.get(name) is None]
    values = {}
    for name, value in present.items():
        if name in known and name not in zeros and value is not None:
            try:
                values[name] = _read(name, value, known[name])
            except InvalidRequest as failure:
                problems += failure.problems
    if problems:
        problems += check(values) if check else ()
        more = [f"There are {len(problems) - MOST_PROBLEMS} more problems."] if len(problems) > MOST_PROBLEMS else []
        raise InvalidRequest.because(*problems[:MOST_PROBLEMS], *more)
    return Arguments(values, dropped, zeros)


def _is_a_hosts(name: str, value: object) -> bool:
    return name in HOST_FIELDS or (name in EMPTY_HOST_FIELDS and not value)


def _is_absent(name: str, value: object) -> bool:
    return value is None or value == "" or (name not in VERBATIM and isinstance(value, str) and value in ABSENT_WORDS)


def _filled_zeros(present: Mapping[str, Any], known: Mapping[str, Schema]) -> tuple[str, ...]:
    numbers = [name for name, node in known.items() if node["type"] in {"integer", "number"} and name != "wait_seconds"]
    if not all(name in present for name in numbers):
        return ()
    return tuple(name for name in numbers if present[name] in (0, "0") and not isinstance(present[name], bool))


def _unknown(tool: str, name: str, known: Mapping[str, Schema]) -> str:
    near = MEANT.get(name) if MEANT.get(name) in known else None
    nearest = near or next(iter(get_close_matches(name[:80], known, n=1, cutoff=0.55)), None)
    hint = f"; did you mean `{nearest}`?" if nearest else "."
    return f"{tool} has no argument `{shortened(name)}`{hint} It takes: {', '.join(known)}."


def _read(name: str, value: object, node: Schema) -> Any:  # noqa: ANN401 - of the schema's type
    if name in VERBATIM and not isinstance(value, str):
        raise InvalidRequest(name, value, "text")
    read = _READERS[node["type"]](name, value, node)
    low, high = node.get("minimum", -math.inf), node.get("maximum", math.inf)
    if node["type"] in {"integer", "number"} and not low <= read <= high:  # NaN fails every comparison
        raise InvalidRequest(name, value, _span(node))
    if node["type"] == "string" and len(read) > node.get("maxLength", math.inf):
        raise InvalidRequest(name, value, f"at most {node['maxLength']} characters")
    return read


def _text(name: str, value: object, _node: Schema) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.12g}" if isinstance(value, float) else str(value)
    raise InvalidRequest(name, value, "text")


def _number(name: str, value: object, node: Schema) -> float:
    try:
        if isinstance(value, str):
            value = int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    except ValueError:
        pass
    raise InvalidRequest(name, value, f"a number {_span(node)}".strip())


def _whole(name: str, value: object, node: Schema) -> int:
    try:
        number = _number(name, value, node)
        if number == int(number):
            return int(number)
    except (InvalidRequest, ValueError, OverflowError):
        pass
    raise InvalidRequest(name, value, f"a whole number {_span(node)}".strip())


def _span(node: Schema) -> str:
    return f"between {node['minimum']} and {node['maximum']}" if "maximum" in node and "minimum" in node else ""


def _truth(name: str, value: object, _node: Schema) -> bool:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in (True, "true", "1"):
        return True
    if word in (False, "false", "0"):
        return False
    raise InvalidRequest(name, value, "true or false")


def _list(name: str, value: object, node: Schema) -> list[Any]:
    items = value if isinstance(value, list) else _parsed(value) if isinstance(value, str) else [value]
    if name == "no":  # Midjourney's own syntax is a list, too
        items = [
            part for item in items for part in (map(str.strip, item.split(",")) if isinstance(item, str) else [item])
        ]
    return [_read(name, item, node["items"]) for item in items if not _is_absent(name, item)]


def _parsed(text: str) -> list[Any]:
    """The list in a JSON text; other text is a list of one."""
    if text.lstrip().startswith("["):
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            return [text]
        if isinstance(parsed, list):
            return parsed
    return [text]


_READERS: dict[str, Callable[[str, object, Schema], Any]] = {
    "string": _text,
    "integer": _whole,
    "number": _number,
    "boolean": _truth,
    "array": _list,
}
