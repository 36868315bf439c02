"""The use cases: generate, change, recall, list.

Each verb reads top to bottom and is where the order of side effects is decided: arguments and parent are checked
first, then `submits.py` buys, then the call waits as long as it may. Knows nothing of MCP, of HTTP or of SQL.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from mj_mcp.errors import (
    ERRORS,
    InvalidRequest,
    NotReady,
    StorageUnavailable,
    TaskNotFound,
    Unauthorized,
    Unconfirmed,
    UpstreamError,
)
from mj_mcp.journal import Journal, Page
from mj_mcp.prompts import Options, compile_prompt
from mj_mcp.proxy import (
    Proxy,
    Submit,
    Trouble,
    Unknown,
    change,
    check_task_id,
    imagine,
    simple_change,
)
from mj_mcp.submits import Submits
from mj_mcp.tasks import Kind, Sighting, Status, Task, accept, merge, move
from mj_mcp.watch import Tick, Watch

log = structlog.get_logger("mj_mcp.studio")

ANSWER_SECONDS = 10.0
"""With `wait_seconds=0`: how long the proxy may take to name its task before the answer is `submitting`."""

GLANCE_SECONDS = 0.9
"""How long `get_task` with `wait_seconds=0` lets a fresh look take before it answers with the last one."""

FAILED_LOOKS_TOLERATED = 3


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller is told: the task, whether it is one that was already running, and what the waiting took."""

    task: Task
    duplicate: bool = False
    notes: tuple[str, ...] = ()
    looks: int = 0
    waited: float = 0.0


class Studio:
    """Everything a caller can ask for. `owner` is the caller's identity; one's tasks are nobody else's."""

    def __init__(
        self, journal: Journal, proxy: Proxy, watch: Watch, submits: Submits, *, now: Callable[[], float]
    ) -> None:
        """`now` gives seconds since the epoch."""
        self._journal = journal
        self._proxy = proxy
        self._watch = watch
        self._submits = submits
        self._now = now

    # ------------------------------------------------------------------------------------------------ verbs

    async def generate(
        self,
        owner: str,
        prompt: str,
        options: Options,
        *,
        allow_multiple: bool = False,
        allow_duplicate: bool = False,
        wait_seconds: float,
        tick: Tick | None = None,
    ) -> Told:
        """Make pictures from a prompt.

        Raises:
            InvalidRequest, Busy, LimitReached, StorageUnavailable: nothing was sent.
            PromptRefused, Rejected, Unauthorized, UpstreamUnreachable: the proxy did not take it.
            Unconfirmed: it may have been charged.
        """
        compiled = compile_prompt(prompt, options, allow_multiple=allow_multiple)
        task = self._intend(owner, Kind.IMAGINE, prompt=compiled.text, warnings=compiled.warnings)
        return await self._buy(task, imagine(compiled.text), allow_duplicate, _Wait(wait_seconds, tick))

    async def change(
        self,
        owner: str,
        kind: Kind,
        handle: str,
        index: int | None,
        *,
        shorthand: bool = False,
        allow_duplicate: bool = False,
        wait_seconds: float,
        tick: Tick | None = None,
    ) -> Told:
        """Upscale, vary or reroll a finished task; `shorthand` sends it as a simple-change.

        Raises:
            NotReady: the parent is not finished.
            TaskNotFound: nobody knows the parent.
            MjError: as `generate`.
        """
        wait = _Wait(wait_seconds, tick)
        parent = await self._parent(owner, handle, wait)
        parent_id = parent.task_id or ""
        task = self._intend(owner, kind, prompt=parent.prompt, parent_id=parent_id, index=index)
        request = (simple_change if shorthand else change)(kind, parent_id, index)
        return await self._buy(task, request, allow_duplicate, wait)

    async def recall(self, owner: str, handle: str, *, wait_seconds: float = 0, tick: Tick | None = None) -> Told:
        """The task with this id as it stands, after waiting up to `wait_seconds` for its end.

        Raises:
            TaskNotFound: neither the journal nor the proxy knows the id.
            UpstreamError, UpstreamUnreachable, Unauthorized: looks keep failing; the task stays open.
            MjError: the refusal itself, when the id is that of a refused submit.
        """
        wait = _Wait(wait_seconds, tick)
        task = await self._journal.find(handle, owner) or await self._adopt(owner, handle, wait)
        looks = self._watch.looks(task)
        if task.is_moving:
            task = await self._watch.wait(
                task, max(wait.until, wait.began + GLANCE_SECONDS), look_now=True, one_look=not wait_seconds, tick=tick
            )
            self._raise_when_blind(task)
        if task.status is Status.REFUSED:
            _raise_unless_accepted(task)
        return Told(task, looks=max(0, self._watch.looks(task) - looks), waited=wait.passed)

    async def look_up(self, handle: str) -> Task:
        """Anybody's task as the journal has it, without a look at the proxy: for the person at the machine.

        Raises:
            TaskNotFound: the journal has no such id.
        """
        task = await self._journal.find(handle, None)
        if task is None:
            raise TaskNotFound(f"the journal knows no task {handle}")
        return task

    async def list_tasks(self, owner: str | None, status: Status | None, limit: int, cursor: str | None) -> Page:
        """The owner's tasks (None: everybody's), newest first."""
        return await self._journal.page(owner, status, limit, cursor)

    # --------------------------------------------------------------------------------- verbs of a person only

    async def attach(self, submission_id: str, task_id: str) -> Task:
        """Resolve a doubt: the person found in the proxy's records that this submit became that task.

        Raises:
            InvalidRequest: it is not in doubt, or the task is another submission's.
            TaskNotFound, UpstreamError: there is no such submission, or the proxy knows no such task.
        """
        task = await self._doubtful(submission_id, Status.UNCONFIRMED, Status.ABANDONED)
        other = await self._journal.find(check_task_id(task_id), None)
        if other is not None:
            raise InvalidRequest(
                "task_id", task_id, f"a task that is in no row yet; {other.submission_id} has this one"
            )
        look = await self._seen(task_id, ANSWER_SECONDS)
        now = self._now()
        return await self._journal.update(task.submission_id, lambda task: merge(accept(task, task_id, now), look, now))

    async def abandon(self, submission_id: str) -> Task:
        """Give a doubtful submit up: its claim is freed, so that the same request can be bought again.

        Raises:
            InvalidRequest: it is not in doubt.
            TaskNotFound: there is no such submission.
        """
        task = await self._doubtful(submission_id, Status.UNCONFIRMED)
        return await self._journal.update(task.submission_id, lambda task: move(task, Status.ABANDONED, self._now()))

    async def _doubtful(self, submission_id: str, *allowed: Status) -> Task:
        task = await self._journal.find(submission_id, None)
        if task is None or task.submission_id != submission_id:
            raise TaskNotFound(f"no submission {submission_id} is known here")
        if task.status not in allowed:
            raise InvalidRequest("submission_id", submission_id, f"an unconfirmed one; this one is {task.status}")
        return task

    # ------------------------------------------------------------------------------------------- buying

    def _intend(self, owner: str, kind: Kind, **request: Any) -> Task:  # noqa: ANN401 - fields of Task
        now = self._now()
        return Task(
            submission_id=f"sub_{uuid.uuid4().hex}",
            status=Status.SUBMITTING,
            owner=owner,
            kind=kind,
            submitted_at=now,
            updated_at=now,
            **request,
        )

    async def _buy(self, task: Task, request: Submit, allow_duplicate: bool, wait: _Wait) -> Told:
        patience = wait.until if wait.seconds else wait.began + ANSWER_SECONDS
        claim = await self._submits.begin(
            task, request, allow_duplicate=allow_duplicate, until=max(patience, wait.began + GLANCE_SECONDS)
        )
        task = await self._watch.wait(
            claim.task, patience, enough=lambda task: task.status is not Status.SUBMITTING, tick=wait.tick
        )
        _raise_unless_accepted(task)
        looks = self._watch.looks(task)
        if wait.seconds:
            task = await self._watch.wait(task, wait.until, tick=wait.tick)
        return Told(
            task,
            duplicate=not claim.is_new,
            notes=self._blindness(task),
            looks=max(0, self._watch.looks(task) - looks),
            waited=wait.passed,
        )

    # ---------------------------------------------------------------------------------------------- parents

    async def _parent(self, owner: str, handle: str, wait: _Wait) -> Task:
        task = await self._journal.find(handle, owner) or await self._adopt(owner, handle, wait)
        if task.is_moving:
            task = await self._watch.wait(task, wait.began + GLANCE_SECONDS, look_now=True, one_look=True)
        if task.is_open:
            raise NotReady(f"task {task.handle} is {task.status}: nothing can be made from it until it has succeeded")
        if task.status is not Status.SUCCEEDED:
            raise InvalidRequest("task_id", handle, f"a task that has succeeded; this one is {task.status}")
        return task

    async def _adopt(self, owner: str, handle: str, wait: _Wait) -> Task:
        """A task that the journal has never seen: looked up once at the proxy, and from then on ours to watch."""
        task_id = check_task_id(handle)
        if task_id.startswith("sub_"):
            raise TaskNotFound(f"no submission {task_id} is known here")
        look = await self._seen(task_id, wait.seconds or ANSWER_SECONDS)
        now = self._now()
        blank = Task(
            submission_id=f"sub_{uuid.uuid4().hex}", status=Status.QUEUED, task_id=task_id, owner=owner, updated_at=now
        )
        adopted = await self._journal.adopt(merge(blank, look, now))
        self._watch.publish(adopted)
        return adopted

    async def _seen(self, task_id: str, seconds: float) -> Sighting:
        """One look that has to see something."""
        look = await self._proxy.look(task_id, seconds=seconds)
        match look:
            case Sighting():
                return look
            case Unknown():
                raise TaskNotFound(f"neither this server nor the proxy knows a task {task_id}")
            case Trouble():
                raise ERRORS[look.code](
                    f"the look at task {task_id} failed: {look.message}", retry_after_seconds=look.retry_after
                )

    # ------------------------------------------------------------------------------------------ failed looks

    def _raise_when_blind(self, task: Task) -> None:
        failing = self._watch.trouble(task)
        if failing is None or not task.is_open:
            return
        count, trouble = failing
        kind = ERRORS.get(trouble.code, UpstreamError)
        if count >= FAILED_LOOKS_TOLERATED or kind is Unauthorized:
            raise kind(
                f"the last {count} looks at task {task.handle} failed ({trouble.message}); the task stays open",
                retry_after_seconds=trouble.retry_after,
                submission_id=task.submission_id,
            )

    def _blindness(self, task: Task) -> tuple[str, ...]:
        failing = self._watch.trouble(task)
        if failing is None or not task.is_open:
            return ()
        count, trouble = failing
        return (f"the last {count} looks at the proxy failed: {trouble.message}",)


@dataclass(frozen=True, slots=True)
class _Wait:
    """How long a call may take, counted from its beginning on the event loop's clock."""

    seconds: float
    tick: Tick | None = None
    began: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "began", asyncio.get_running_loop().time())

    @property
    def until(self) -> float:
        return self.began + self.seconds

    @property
    def passed(self) -> float:
        return asyncio.get_running_loop().time() - self.began


def _raise_unless_accepted(task: Task) -> None:
    """A submit that the proxy did not take, or may have taken, is an error of whoever asked for it."""
    failure = task.failure
    if task.status is Status.REFUSED and failure is not None:
        kind = ERRORS.get(failure.code, StorageUnavailable)
        raise kind(failure.message, retry_after_seconds=failure.retry_after_seconds, submission_id=task.submission_id)
    if task.status is Status.UNCONFIRMED:
        reason = failure.message if failure else "the answer was lost"
        raise Unconfirmed(f"the submit may have been accepted and charged ({reason})", submission_id=task.submission_id)
