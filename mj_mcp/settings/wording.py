"""What a setting must be, in our words instead of the library's. Knows only the kinds of errors."""

from __future__ import annotations

from pydantic_core import ErrorDetails

_SAYS = {
    "int_parsing": "it must be a whole number",
    "int_parsing_size": "it must be a smaller number",
    "int_from_float": "it must be a whole number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a number",
    "bool_parsing": "it must be 1 or 0",
    "greater_than_equal": "it must be at least {ge:g}",
    "less_than_equal": "it must be at most {le:g}",
    "literal_error": "it must be {expected}",
}


def must_be(error: ErrorDetails) -> str:
    """What is allowed, without the value. An error of our own validators says it already."""
    ours = error.get("ctx", {}).get("error")
    if ours is not None:
        return str(ours)
    return _SAYS.get(error["type"], "it is not a value of this kind").format(**error.get("ctx", {})).replace("'", "")
