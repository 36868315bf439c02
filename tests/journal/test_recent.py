"""What a process keeps at hand of its tasks is bounded, and what is asked for stays."""

from __future__ import annotations

from mj_mcp.journal.recent import LAST_KNOWN, RECENT_TASKS, Finished, LastKnown
from mj_mcp.tasks import Status, Task


def task(number: int) -> Task:
    return Task(submission_id=f"sub_{number}", status=Status.SUCCEEDED, updated_at=0.0, task_id=str(number))


def test_a_finished_task_that_is_asked_for_again_and_again_is_kept_at_hand() -> None:
    finished = Finished()
    for number in range(RECENT_TASKS + 1):
        finished.remember(str(number), task(number), finished.changes)
        assert finished.recall("0", "local") == task(0)
    assert finished.recall("1", "local") is None


def test_of_the_tasks_that_were_seen_those_seen_last_are_known() -> None:
    known = LastKnown()
    for number in range(LAST_KNOWN // 2 + 1):
        known.note(task(number))
    assert known.recall("0", "local") is known.recall("sub_0", "local") is None
    assert known.recall("1", "local") == known.recall("sub_1", None) == task(1)
    assert known.recall("1", "another") is None
