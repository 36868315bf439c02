"""Warnings in words, from the codes of a row."""

from __future__ import annotations

import pytest

from mj_mcp.proxy import Trouble
from mj_mcp.server.render.warnings import GIVEN_UP, WARNING_WORDS, warnings_of, worded
from mj_mcp.studio import Result
from mj_mcp.tasks import Status, Task, WarningCode


def test_every_code_has_words() -> None:
    assert {*WARNING_WORDS} == {*WarningCode}


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (WarningCode.QUEUED_BEHIND.of(3), "queued behind 3 other jobs"),
        (WarningCode.LINKS_UNUSABLE.of(4, 5), "4 of 5 picture links were unusable"),
        ("existed", "the proxy says that this task existed already"),
        ("nothing has moved for 31 minutes", "nothing has moved for 31 minutes"),
        ("V5 ignores `style_weight`: it works from V6 on.", "V5 ignores `style_weight`: it works from V6 on."),
        ("of_a_newer_version:1", "of_a_newer_version:1"),
        ("idle", "idle"),
        ("queued_behind:{}:1", "queued_behind:{}:1"),
    ],
)
def test_a_code_is_worded_and_a_sentence_stays_as_it_is(stored: str, shown: str) -> None:
    assert worded(stored) == shown


def test_a_call_tells_the_warnings_of_the_row_first() -> None:
    task = Task(submission_id="sub_1", status=Status.STALLED, updated_at=0.0, given_up_at=1.0, warnings=("idle:31",))
    result = Result(task, trouble=(2, Trouble("upstream_error", "HTTP 502"))).noting("a note")
    polls = "the last 2 polls of the proxy failed: HTTP 502"
    assert warnings_of(result) == ["nothing has moved for 31 minutes", GIVEN_UP, polls, "a note"]
