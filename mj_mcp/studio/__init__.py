"""The use cases: submit, wait, recall, view, save.

Each function reads top to bottom and decides the order of side effects: arguments and parent are checked first, then
`submits` buys, then the call waits as long as it may. Knows nothing of MCP, of HTTP or of SQL.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog

from mj_mcp.archive.store import Picture
from mj_mcp.background import Background
from mj_mcp.errors import InvalidRequest, NotReady, StorageUnavailable, TaskNotFound
from mj_mcp.events import Listeners
from mj_mcp.gallery import Gallery, Shown
from mj_mcp.gallery.originals import File, image_of, with_measured
from mj_mcp.journal import UNREAD, Journal, Page, Usage
from mj_mcp.pictures import Rendered, SavedFile
from mj_mcp.polling.poller import Poller
from mj_mcp.prompts import Options, compile_prompt
from mj_mcp.proxy import Change, Imagine, Order, Press, Proxy, check_task_id
from mj_mcp.proxy.raising import observation_of, raise_unless_accepted, raise_when_polls_fail
from mj_mcp.studio.by_hand import ByHand
from mj_mcp.studio.call import ANSWER_SECONDS, Call
from mj_mcp.studio.pressing import check_press
from mj_mcp.studio.references import Folders, References
from mj_mcp.studio.result import PLAIN, Purchase, Result
from mj_mcp.studio.several import VIEW_SECONDS, Several
from mj_mcp.submits import Submits
from mj_mcp.tasks import LOCAL_OWNER, Kind, Status, Task, warn
from mj_mcp.tasks.merging import merge

__all__ = ["Call", "Options", "Purchase", "Result", "Studio"]

log = structlog.get_logger("mj_mcp.studio")

READY_SECONDS = 2.0
"""How long a read of the journal may take before the server counts as not ready."""


class Studio:
    """Everything a caller can ask for. A caller sees only its own tasks."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy,
        poller: Poller,
        submits: Submits,
        gallery: Gallery,
        *,
        folders: Folders,
        listeners: Listeners,
        background: Background,
        now: Callable[[], float],
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`now` returns seconds since the epoch; `listeners` receive every change of a task.

        `background` runs the tasks that the studio needs. `answer_seconds`: how long a call that does not wait gives
        the proxy to name its task.
        """
        self._journal = journal
        self.listeners = listeners
        self._background = background
        self._proxy = proxy
        self._poller = poller
        self._submits = submits
        self._gallery = gallery
        self.now = now
        self._answer_seconds = answer_seconds
        self.several = Several(poller, gallery, self._known)
        self._references = References(gallery, folders, self._task)
        self.by_hand = ByHand(self._references, self._new, self.submit, self.wait)

    # -------------------------------------------------------------------------------------------------- buying

    async def imagine(self, call: Call, prompt: str, options: Options, purchase: Purchase = PLAIN) -> Result:
        """Submit a prompt. Returns the task once the proxy has answered, or the call's time is up.

        Raises:
            NotReady, TaskNotFound, ImageUnavailable: one of our pictures cannot be used as a reference.
            InvalidRequest, Busy, LimitReached, StorageUnavailable: nothing was sent.
            PromptRefused, Rejected, Unauthorized, UpstreamUnreachable: the proxy did not accept it.
            Unconfirmed: it may have been charged.
        """
        check = partial(
            compile_prompt, prompt, options, allow_multiple=purchase.allow_multiple, extra_flags=purchase.extra_flags
        )
        compiled, uploads = await self._references.compile(call.owner, options, check)
        # The row holds our own names of pictures. Their links change every hour with their signatures.
        task = replace(self._new(call, Kind.IMAGINE), prompt=compiled.key, warnings=compiled.warnings)
        return await self.submit(call, task, Imagine(compiled.text, uploads), purchase)

    async def change(
        self,
        call: Call,
        kind: Kind,
        handle: str,
        index: int | None,
        purchase: Purchase = PLAIN,
        *,
        shorthand: bool = False,
    ) -> Result:
        """Submit an upscale, a variation or a reroll of a finished task. `shorthand` sends it as a simple-change.

        Raises:
            NotReady: the parent is not finished.
            TaskNotFound: nobody knows the parent.
            MjError: as `imagine`.
        """
        parent = await self._parent(call, handle)
        parent_id = parent.task_id or ""
        task = replace(self._new(call, kind), prompt=parent.prompt, parent_id=parent_id, index=index)
        return await self.submit(call, task, Change(kind, parent_id, index, shorthand), purchase)

    async def press(
        self, call: Call, handle: str, button: str, prompt: str | None = None, purchase: Purchase = PLAIN
    ) -> Result:
        """Press a button of a finished task that no other method stands for. `prompt`: for one that asks for it.

        Raises:
            InvalidRequest: `button` or `prompt` cannot be used.
            Unsupported: the proxy does not offer this button for the task now. Nothing was sent.
            MjError: as `change`.
        """
        written = check_press(button, prompt, purchase)
        parent = await self._parent(call, handle)
        task = replace(
            self._new(call, Kind.BUTTON),
            prompt=written.key if written else parent.prompt,
            parent_id=parent.task_id,
            button=" ".join(button.split()),
            warnings=written.warnings if written else (),
        )
        order = Press(parent.task_id or "", button, written.text if written else None)
        return await self.submit(call, task, order, purchase)

    async def submit(self, call: Call, task: Task, order: Order, purchase: Purchase) -> Result:
        """Submit `order` once; `task` becomes its row. Returns and raises like `imagine`."""
        answer_by = call.until if call.waits else call.began + self._answer_seconds
        claim, task, polls = await self._submits.submit(
            task,
            order,
            allow_duplicate=purchase.allow_duplicate,
            until=max(answer_by, call.until_polled),
            answer_by=answer_by,
            queue=call.wait_seconds > 0,
            on_progress=call.on_progress,
        )
        if not claim.is_new:
            task = await self._looked_up(call, task)
        raise_unless_accepted(task)
        ended = None if claim.is_new or task.is_open else self.now() - (task.finished_at or task.updated_at)
        return Result(task, duplicate=not claim.is_new, finished_ago=ended, polls=polls, waited=call.waited)

    async def wait(self, call: Call, submitted: Result) -> Result:
        """The task when it has ended, with its pictures, or as it is when the call's time is up."""
        task, polls = submitted.task, submitted.polls
        if call.waits and task.is_polled:
            task, polls = await self._poller.wait(task, call.until, on_progress=call.on_progress)
        trouble = self._poller.trouble(task) if task.is_open else None
        task, shown = await self._show(call, task)
        return replace(submitted, task=task, trouble=trouble, shown=shown, polls=polls, waited=call.waited)

    # ------------------------------------------------------------------------------------------------- reading

    async def recall(self, call: Call, handle: str, *, picture: bool = False) -> Result:
        """The task with this id, after waiting for its end as long as the call may.

        Raises:
            TaskNotFound: neither the journal nor the proxy knows the id.
            UpstreamError, UpstreamUnreachable, Unauthorized: polls keep failing; the task stays open.
            MjError: the id belongs to a refused submit; this is the refusal.
        """
        known = await self._journal.find(handle, call.owner)
        task = await self._looked_up(call, known or await self._adopt(call, handle))
        polls = 0
        if task.is_moving and (known or call.wait_seconds):
            task, polls = await self._poller.wait(
                task,
                call.until_polled,
                poll_now=known is not None,
                one_poll=not call.wait_seconds,
                on_progress=call.on_progress,
            )
            raise_when_polls_fail(task, self._poller.trouble(task))
        if known is not None and UNREAD in known.warnings:
            task = warn(task, UNREAD)  # even where a poll has observed more since
        if task.status is Status.REFUSED:
            raise_unless_accepted(task)
        task, shown = await self._show(call, task) if picture else (task, None)
        return Result(await self._gallery.present(task), shown=shown, polls=polls, waited=call.waited)

    async def find(self, owner: str, handle: str) -> Task | None:
        """The owner's task as the journal has it. Neither polls nor asks the proxy."""
        return await self._journal.find(handle, owner)

    def remaining(self, task: Task) -> float | None:
        """Seconds until an open task is usually done; None when unknown."""
        return self._poller.remaining(task)

    def release(self) -> None:
        """End every wait: callers are answered with what is known, as if their time were up. POSTs continue."""
        self._poller.release()
        self._submits.release()

    async def faults(self) -> dict[str, str]:
        """The parts of this server that do not work, and why. A refused key is not one: finished tasks need none."""
        faults = dict.fromkeys(sorted(self._background.down), "down")
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._journal.page(LOCAL_OWNER, None, 1, None)
        except (StorageUnavailable, TimeoutError) as failure:
            log.warning("not_ready", reason=str(failure) or "the journal did not answer in time")
            faults["journal"] = "unavailable"
        return faults

    async def list_tasks(
        self, owner: str, status: Status | None, limit: int, cursor: str | None, *, since: float | None = None
    ) -> Page:
        """The owner's tasks, newest first. `since` limits them to those submitted at that time or later."""
        return await self._journal.page(owner, status, limit, cursor, since)

    async def usage(self, owner: str) -> Usage:
        """The owner's usage, counted as the limits count. Without logins: the usage of the account."""
        return await self._journal.usage(None if owner == LOCAL_OWNER else owner, self._submits.limits)

    async def view(self, call: Call, handle: str, index: int, max_edge: int) -> tuple[Task, Rendered]:
        """One picture of a finished task, large enough to judge.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable, TaskNotFound.
        """
        task = (await self.recall(call, handle)).task
        return task, await self._gallery.view(task, index, max_edge)

    async def view_sheet(self, call: Call, handle: str) -> Result:
        """All pictures of a finished task on one sheet.

        Raises:
            NotReady, InvalidRequest, TaskNotFound.
        """
        task = (await self.recall(call, handle)).task
        image_of(task, task.images[0].index if task.images else 1)
        return Result(task, shown=await self._gallery.show(task, VIEW_SECONDS))

    async def original(self, call: Call, handle: str, index: int) -> Picture:
        """One original of a finished task.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable, TaskNotFound.
        """
        return await self._gallery.original((await self.recall(call, handle)).task, index)

    async def file(self, call: Call, handle: str, index: int) -> File:
        """Like `original`, but as a file where one is kept. Raises like `original`."""
        return await self._gallery.file((await self.recall(call, handle)).task, index)

    async def save(
        self, call: Call, handle: str, indexes: Sequence[int] | None, folder: str | None, name: str | None = None
    ) -> tuple[Task, list[SavedFile]]:
        """Save the originals of a finished task in the output folder, named after the task's id or `name`.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable, StorageUnavailable, TaskNotFound.
        """
        task = (await self.recall(call, handle)).task
        return task, await self._gallery.save(task, indexes, folder, name)

    async def _show(self, call: Call, task: Task) -> tuple[Task, Shown | None]:
        """The task's sheet, within the rest of the call's time; and the task with what was measured for it."""
        if task.status is not Status.SUCCEEDED:
            return task, None
        shown = await self._gallery.show(task, call.left_for_sheet)
        return with_measured(task, shown.images), shown

    # -------------------------------------------------------------------------------------------- helpers

    async def _task(self, owner: str, handle: str) -> Task:
        return (await self.recall(Call(owner=owner), handle)).task

    def _new(self, call: Call, kind: Kind | None) -> Task:
        """The row of a new request."""
        now = self.now()
        return Task(
            submission_id=_new_id(),
            status=Status.SUBMITTING,
            owner=call.owner,
            kind=kind,
            submitted_at=now,
            updated_at=now,
        )

    async def _parent(self, call: Call, handle: str) -> Task:
        task = await self._known(call, handle)
        if task.is_moving:
            task, _ = await self._poller.wait(task, call.until_polled, poll_now=True, one_poll=True)
        if task.is_open:
            raise NotReady(f"task {task.handle} is {task.status}: nothing can be made from it until it has succeeded")
        if task.status is not Status.SUCCEEDED:
            raise InvalidRequest("task_id", handle, f"a task that has succeeded; this one is {task.status}")
        return task

    async def _looked_up(self, call: Call, task: Task) -> Task:
        """`task`; an unconfirmed one is looked up at the proxy first, as long as the call may wait."""
        if task.status is not Status.UNCONFIRMED:
            return task
        with suppress(TimeoutError, StorageUnavailable):
            async with asyncio.timeout_at(call.until_polled):
                return await self._submits.lookup.resolve(task)
        return task

    async def _known(self, call: Call, handle: str) -> Task:
        return await self._journal.find(handle, call.owner) or await self._adopt(call, handle)

    async def _adopt(self, call: Call, handle: str) -> Task:
        """A task that the journal does not have: fetched once from the proxy, and polled by us from then on."""
        task_id = check_task_id(handle)
        # Nobody here bought the task, so its owner is unknown. With several callers, nobody may see it.
        if task_id.startswith("sub_") or call.owner != LOCAL_OWNER:
            raise TaskNotFound(f"no task {task_id} is known here")
        fetched = observation_of(
            task_id, await self._proxy.fetch(task_id, seconds=call.wait_seconds or self._answer_seconds)
        )
        now = self.now()
        blank = Task(submission_id=_new_id(), status=Status.QUEUED, task_id=task_id, owner=call.owner, updated_at=now)
        adopted = await self._journal.adopt(merge(blank, fetched, now))
        self._poller.follow(adopted)
        self._poller.publish(adopted)
        return adopted


def _new_id() -> str:
    return f"sub_{uuid.uuid4().hex}"
