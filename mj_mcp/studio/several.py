"""Several tasks at once: one wait for all of them, one sheet of their pictures.

Owns which picture goes into which tile. Knows nothing of MCP, nor of how one task is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase

from mj_mcp.errors import TaskNotFound
from mj_mcp.gallery import Gallery, Labelled, Shown
from mj_mcp.gallery.originals import image_of, pictures_of
from mj_mcp.polling.poller import Poller
from mj_mcp.studio.call import SHEET_SECONDS, Call
from mj_mcp.tasks import Status, Task

VIEW_SECONDS = 22.0
"""The time for a sheet that was requested by itself: hosts cut a call after 25 s or more."""


WHOLE_TASKS = 4
"""For up to this many tasks an overview shows every picture; for more, one tile each."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """Several tasks after a wait, in the order requested. `letters` maps each task to its tiles on the sheet."""

    tasks: tuple[Task, ...]
    unknown: tuple[str, ...] = ()
    letters: Mapping[str, str] = field(default_factory=dict)
    shown: Shown | None = None
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Compared:
    """Pictures of several tasks on one sheet."""

    pictures: tuple[Labelled, ...]
    shown: Shown


class Several:
    """What can be done with several tasks at once."""

    def __init__(
        self,
        poller: Poller,
        gallery: Gallery,
        known: Callable[[Call, str], Awaitable[Task]],
    ) -> None:
        """`known` raises `TaskNotFound` where nobody knows the task."""
        self._poller = poller
        self._gallery = gallery
        self._known = known

    async def wait_for_all(
        self,
        call: Call,
        handles: Sequence[str],
        *,
        until_any: bool = False,
    ) -> Awaited:
        """Wait until all of these tasks (with `until_any`: one of them) have ended, or time is up.

        Raises:
            InvalidRequest: an id has characters that no task id has.
            UpstreamError, UpstreamUnreachable, Unauthorized: an id had to be fetched from the proxy, and that failed.
        """
        found = await asyncio.gather(*(self._found(call, handle) for handle in handles))
        tasks = {task.submission_id: task for task in found if task is not None}
        if not (until_any and any(not task.is_moving for task in tasks.values())):
            tasks = await self._wait_for_each(call, tasks, until_any=until_any)
        finished = [task for task in tasks.values() if task.status is Status.SUCCEEDED and pictures_of(task)]
        groups = overview(finished)
        letters = {group[0].task.submission_id: group[0].label[0] for group in groups}
        shown = None
        if groups:
            shown = await self._gallery.together(groups, max(call.left_for_sheet, SHEET_SECONDS))
        unknown = tuple(handle for handle, task in zip(handles, found, strict=True) if task is None)
        return Awaited(tuple(tasks.values()), unknown, letters, shown, call.waited)

    async def compare(self, call: Call, pictures: Sequence[tuple[str, int]]) -> Compared:
        """Pictures of finished tasks on one sheet, each given by task id and index.

        Raises:
            NotReady, InvalidRequest, TaskNotFound: for any of them.
        """
        chosen = []
        for (handle, index), label in zip(pictures, ascii_uppercase, strict=False):
            task = await self._known(call, handle)
            chosen.append(Labelled(label, task, image_of(task, index).index))
        return Compared(tuple(chosen), await self._gallery.together([chosen], VIEW_SECONDS))

    async def _found(self, call: Call, handle: str) -> Task | None:
        try:
            return await self._known(call, handle)
        except TaskNotFound:
            return None

    async def _wait_for_each(self, call: Call, tasks: dict[str, Task], *, until_any: bool) -> dict[str, Task]:
        """The tasks when all (one) of those that move have ended, or time is up."""
        waits = {
            sid: asyncio.create_task(
                self._poller.wait(
                    task,
                    call.until_polled,
                    poll_now=True,
                    one_poll=not call.wait_seconds,
                    on_progress=call.on_progress,
                )
            )
            for sid, task in tasks.items()
            if task.is_moving
        }
        try:
            if waits:
                when = asyncio.FIRST_COMPLETED if until_any else asyncio.ALL_COMPLETED
                await asyncio.wait(waits.values(), return_when=when)
        finally:
            for waiting in waits.values():
                waiting.cancel()
            await asyncio.gather(*waits.values(), return_exceptions=True)
        return tasks | {sid: waiting.result()[0] for sid, waiting in waits.items() if not waiting.cancelled()}


def overview(tasks: Sequence[Task]) -> list[list[Labelled]]:
    """Labels for up to 26 finished tasks, one group per task: every picture of up to four (A1, A2, ...), else one tile.

    The first letter of a group's labels names its task.
    """
    if len(tasks) > WHOLE_TASKS:
        return [[Labelled(letter, task)] for letter, task in zip(ascii_uppercase, tasks, strict=False)]
    return [
        [Labelled(f"{letter}{image.index}", task, image.index) for image in task.images] or [Labelled(letter, task)]
        for letter, task in zip(ascii_uppercase, tasks, strict=False)
    ]
