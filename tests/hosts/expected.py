"""What clients do not hand on, by name and version: limits of theirs, each seen here and none of ours.

A limit that is not seen any more fails the run as a new loss does, and so does one of another version than the
installed one: look again, then write down what you saw.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """Losses that are the client's own; `why` is shown under the table. They are worded by `judge.py`."""

    client: str
    version: str
    losses: dict[str, list[str]]
    why: str


_BASE64 = {"success": ["base64 in the text"], "view": ["base64 in the text"]}
_NO_PICTURE = {"success": ["no picture"], "view": ["no picture"]}
_INLINE = "`MJ_INLINE_IMAGES=0` keeps the sheets of other results out of its context."

LIMITS = (
    Limit(
        "google-genai",
        "3.6.1",
        _BASE64,
        f"it sends the whole result to the model as JSON, pictures as base64 text. {_INLINE}",
    ),
    Limit(
        "google-adk",
        "2.13.0",
        _BASE64,
        f"it sends the whole result to the model as JSON, pictures as base64 text. {_INLINE}",
    ),
    Limit(
        "LlamaIndex",
        "0.6.0",
        {"tools": ["item limits", "limits"], **_BASE64},
        "it rebuilds schemas without limits, and prints the whole result into the text, pictures as base64. " + _INLINE,
    ),
    Limit(
        "Semantic Kernel",
        "1.45.0",
        _BASE64,
        f"it prints the whole result into the text, pictures as base64. {_INLINE}",
    ),
    Limit(
        "Mastra",
        "2.0.0",
        {"success": ["no picture"]},
        "it hands the model the text alone where a tool has an output schema; `view_image` has none, and its picture "
        "arrives.",
    ),
    Limit(
        "Agent Framework",
        "1.23.0",
        {"success": ["no picture"]},
        "it hands the model the structured content alone where there is one; `view_image` has none, and its picture "
        "arrives.",
    ),
    Limit(
        "DSPy",
        "3.4.1",
        {"tools": ["required"], **_NO_PICTURE},
        "it declares every argument as required, and drops pictures where there is text.",
    ),
    Limit(
        "smolagents",
        "1.26.0",
        {"tools": ["required"], **_NO_PICTURE},
        "it declares every argument as required (they are sent filled with empty values here), and hands the model the "
        "first block alone.",
    ),
    Limit(
        "crewai-tools",
        "1.15.30",
        {"tools": ["item limits"], **_NO_PICTURE},
        "it rebuilds schemas without the limits of items, and hands the model the text alone.",
    ),
    Limit(
        "autogen-ext",
        "0.7.5",
        {"tools": ["item limits"]},
        "it rebuilds schemas without the limits of items.",
    ),
)
