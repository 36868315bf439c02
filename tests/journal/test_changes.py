"""Changes: what another process wrote is seen once, in order."""

from __future__ import annotations

import pytest
from journals import NOON, Open, bought, done, let_pass, new

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal.protocol import LEASE_SECONDS
from mj_mcp.tasks import Kind

pytestmark = pytest.mark.anyio


async def test_changes_tell_what_another_process_wrote_and_only_that(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    before = await bought(first, new())
    assert await second.changes() == []
    ours = await bought(second, new())
    assert await second.changes() == []
    theirs = await first.update(before.submission_id, done)
    assert await second.changes() == [theirs]
    assert await second.changes() == []
    assert await first.changes() == []
    ours = await second.update(ours.submission_id, done)
    assert await first.changes() == [ours]


async def test_a_damaged_row_hides_no_other_from_those_who_read_many(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    damaged, sound = await bought(first, new()), await bought(first, new())
    assert await second.changes() == []
    damaged, sound = [await first.update(task.submission_id, done) for task in (damaged, sound)]
    await first._write(
        lambda db: db.execute("UPDATE tasks SET body = '{' WHERE submission_id = ?", (damaged.submission_id,))
    )
    assert await second.changes() == [sound]
    assert await second.finished(Kind.IMAGINE, 10) == [sound]
    assert (await second.page("local", None, 10, None)).tasks == (sound,)
    with pytest.raises(StorageUnavailable, match="`mj-mcp journal check`"):
        await second.find(damaged.submission_id, "local")


async def test_a_poll_that_showed_nothing_new_is_no_change(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await second.changes() == []
    assert await first.update(task.submission_id, lambda known: known) == task
    assert await second.changes() == []


async def test_the_lease_of_another_process_is_no_change_of_a_task(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await second.changes() == []
    await let_pass(first, LEASE_SECONDS)
    assert await first.tend(NOON) == [task]
    assert await second.changes() == []


async def test_changes_come_in_order_and_each_task_once(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    assert await second.changes() == []
    one, two = await bought(first, new()), await bought(first, new())
    one = await first.update(one.submission_id, done)
    assert await second.changes() == [two, one]
