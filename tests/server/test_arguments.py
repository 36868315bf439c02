"""Arguments as hosts send them: what is left out, what is coerced, and what is refused, all at once."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mj_mcp.errors import InvalidRequest
from mj_mcp.server.arguments import ABSENT_WORDS, HOST_FIELDS, MOST_PROBLEMS, Arguments, read_arguments

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string"},
        "style": {"type": "string", "maxLength": 10},
        "index": {"type": "integer", "minimum": 1, "maximum": 4},
        "chaos": {"type": "integer", "minimum": 0, "maximum": 100},
        "quality": {"type": "number"},
        "wait_seconds": {"type": "number", "minimum": 0, "maximum": 600},
        "raw": {"type": "boolean"},
        "no": {"type": "array", "items": {"type": "string"}},
        "indexes": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 16}},
    },
    "required": ["prompt"],
}


def read(**given: Any) -> dict[str, Any]:
    """The values of a call with a prompt, less the prompt."""
    values = read_arguments("draw", {"prompt": "a mug"} | given, SCHEMA).values
    assert values.pop("prompt") == "a mug"
    return values


def problems(**given: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidRequest) as caught:
        read_arguments("draw", {"prompt": "a mug"} | given, SCHEMA)
    return caught.value.problems


@pytest.mark.parametrize("filler", [None, "", *sorted(ABSENT_WORDS)])
@pytest.mark.parametrize("name", [name for name in SCHEMA["properties"] if name != "prompt"])
def test_a_filler_leaves_an_optional_argument_out(name: str, filler: object) -> None:
    assert read(**{name: filler}) == {}


@pytest.mark.parametrize("filler", [None, "", *sorted(ABSENT_WORDS)])
@pytest.mark.parametrize("name", ["no", "indexes"])
def test_a_filler_as_an_item_of_a_list_is_no_item(name: str, filler: object) -> None:
    assert read(**{name: [filler]}) == {name: []}


def test_a_prompt_is_taken_as_it_is_written() -> None:
    for prompt in ["null", "None", "[1]", "7", " spaces "]:
        assert read_arguments("draw", {"prompt": prompt}, SCHEMA).values == {"prompt": prompt}
    for other in (7, ["a mug"], True, {"text": "a mug"}):
        assert problems(prompt=other)[0].startswith("`prompt` must be text (got ")


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        ({"style": 7}, {"style": "7"}),
        ({"style": 8.1}, {"style": "8.1"}),
        ({"style": 7.0}, {"style": "7"}),
        ({"index": "2"}, {"index": 2}),
        ({"index": 2.0}, {"index": 2}),
        ({"index": " 2 "}, {"index": 2}),
        ({"quality": "0.5"}, {"quality": 0.5}),
        ({"wait_seconds": 0}, {"wait_seconds": 0}),
        ({"wait_seconds": "0"}, {"wait_seconds": 0}),
        ({"raw": "true"}, {"raw": True}),
        ({"raw": "False"}, {"raw": False}),
        ({"raw": 1}, {"raw": True}),
        ({"no": "cars"}, {"no": ["cars"]}),
        ({"no": "cars, people"}, {"no": ["cars", "people"]}),
        ({"no": ["cars, people", "text"]}, {"no": ["cars", "people", "text"]}),
        ({"no": '["cars", "people"]'}, {"no": ["cars", "people"]}),
        ({"no": "[cars"}, {"no": ["[cars"]}),
        ({"indexes": 3}, {"indexes": [3]}),
        ({"indexes": "3"}, {"indexes": [3]}),
        ({"indexes": "[1, 3]"}, {"indexes": [1, 3]}),
        ({"indexes": ["1", 3.0]}, {"indexes": [1, 3]}),
    ],
)
def test_what_is_unambiguous_is_coerced(given: dict[str, Any], read_as: dict[str, Any]) -> None:
    values = read(**given)
    assert values == read_as
    assert [type(value) for value in values.values()] == [type(value) for value in read_as.values()]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"index": 5}, "`index` must be between 1 and 4 (got 5)."),
        ({"index": "five"}, '`index` must be a whole number between 1 and 4 (got "five").'),
        ({"index": 1.5}, "`index` must be a whole number between 1 and 4 (got 1.5)."),
        ({"index": True}, "`index` must be a whole number between 1 and 4 (got true)."),
        ({"index": [2]}, "`index` must be a whole number between 1 and 4 (got [2])."),
        ({"index": 10**400}, f"`index` must be between 1 and 4 (got 1{'0' * 196}...)."),
        ({"wait_seconds": math.nan}, "`wait_seconds` must be between 0 and 600 (got NaN)."),
        ({"wait_seconds": math.inf}, "`wait_seconds` must be between 0 and 600 (got Infinity)."),
        ({"quality": "high"}, '`quality` must be a number (got "high").'),
        ({"raw": "yes please"}, '`raw` must be true or false (got "yes please").'),
        ({"raw": 2}, "`raw` must be true or false (got 2)."),
        ({"style": {"a": 1}}, '`style` must be text (got {"a": 1}).'),
        ({"style": "x" * 11}, f'`style` must be at most 10 characters (got "{"x" * 11}").'),
        ({"indexes": [1, 99]}, "`indexes` must be between 1 and 16 (got 99)."),
        ({"no": [{"a": 1}]}, '`no` must be text (got {"a": 1}).'),
    ],
)
def test_what_is_wrong_is_said_in_our_words(given: dict[str, Any], said: str) -> None:
    assert problems(**given) == (said,)


def test_all_problems_are_said_at_once() -> None:
    said = problems(prompt=None, index=9, chaso=3, raw="maybe")
    assert len(said) == 4
    assert (
        said[0]
        == "draw has no argument `chaso`; did you mean `chaos`? It takes: " + ", ".join(SCHEMA["properties"]) + "."
    )
    assert "`prompt` must be given." in said


def test_a_name_that_agents_try_is_met_by_its_meaning() -> None:
    schema = {"type": "object", "properties": {"aspect_ratio": {"type": "string"}, "task_id": {"type": "string"}}}
    for name, meant in [("ar", "aspect_ratio"), ("aspect", "aspect_ratio"), ("id", "task_id")]:
        with pytest.raises(InvalidRequest, match=rf"no argument `{name}`; did you mean `{meant}`\?"):
            read_arguments("draw", {name: "x"}, schema)


def test_a_flood_of_wrong_names_is_answered_in_few_words() -> None:
    said = problems(**{f"{number}-{'x' * 10_000}": 1 for number in range(300)})
    assert len(said) == MOST_PROBLEMS + 1
    assert sum(map(len, said)) < 5_000
    assert said[-1] == f"There are {300 - MOST_PROBLEMS} more problems."


@pytest.mark.parametrize("name", sorted(HOST_FIELDS))
def test_a_field_of_the_hosts_own_is_dropped_and_named(name: str) -> None:
    read_as = read_arguments("draw", {"prompt": "a mug", name: "whatever"}, SCHEMA)
    assert read_as == Arguments({"prompt": "a mug"}, dropped=(name,))


def test_a_hosts_field_is_an_argument_where_the_tool_has_it() -> None:
    schema = {"type": "object", "properties": {"action": {"type": "string"}}}
    assert read_arguments("act", {"action": "zoom"}, schema).values == {"action": "zoom"}


def test_kwargs_that_hold_something_are_not_dropped() -> None:
    assert read(kwargs={}) == read(kwargs=None) == {}
    assert problems(kwargs={"chaos": 3})[0].startswith("draw has no argument `kwargs`")


class TestStrictHosts:
    """A host with strict schemas has to fill every argument; a 0 is then what it writes for "nothing"."""

    def filled(self, **given: Any) -> Arguments:
        everything = {"index": 1, "chaos": 0, "quality": 0} | given
        return read_arguments("draw", {"prompt": "a mug"} | everything, SCHEMA, drop_zeros=True)

    def test_zeros_are_left_out_where_every_number_is_given(self) -> None:
        read_as = self.filled(wait_seconds=0)
        assert read_as.values == {"prompt": "a mug", "index": 1, "wait_seconds": 0}
        assert read_as.zeros == ("chaos", "quality")

    def test_a_zero_stands_where_one_number_is_missing(self) -> None:
        read_as = self.filled(index=None)
        assert read_as.values == {"prompt": "a mug", "chaos": 0, "quality": 0}
        assert read_as.zeros == ()

    def test_a_zero_stands_in_the_other_tools(self) -> None:
        everything = {"prompt": "a mug", "index": 1, "chaos": 0, "quality": 0}
        assert read_arguments("other", everything, SCHEMA).values == everything
