"""The use cases: generate, change, recall, list.

Each verb reads top to bottom and is where the order of side effects is decided. The order of a submit:

1. arguments and parent are checked; limits, duplicate claim and row in one transaction of the journal;
2. one POST, in a task of its own that no cancelled caller can take down;
3. its outcome is recorded: accepted, refused, or in doubt;
4. only then does anybody hear of it. Nothing is ever posted again by itself.

Owns that order. Knows nothing of MCP, of HTTP or of SQL.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Callable, Coroutine
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
from mj_mcp.journal import Claim, Journal, Limits, Page
from mj_mcp.prompts import Options, compile_prompt
from mj_mcp.proxy import (
    Accepted,
    Doubtful,
    Proxy,
    Refused,
    Submit,
    Trouble,
    Unknown,
    change,
    check_task_id,
    imagine,
    simple_change,
)
from mj_mcp.tasks import MOVES, Failure, Kind, Sighting, Status, Task, accept, doubt, merge, refuse
from mj_mcp.watch import Tick, Watch

log = structlog.get_logger("mj_mcp.studio")

ANSWER_SECONDS = 10.0
"""With `wait_seconds=0`: how long the proxy may take to name its task before the answer is `submitting`."""

GLANCE_SECONDS = 0.9
"""How long `get_task` with `wait_seconds=0` lets a fresh look take before it answers with the last one."""

FAILED_LOOKS_TOLERATED = 3
RECORD_AGAIN_SECONDS = 1.0


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
        self, journal: Journal, proxy: Proxy, watch: Watch, *, limits: Limits, now: Callable[[], float]
    ) -> None:
        """`now` gives seconds since the epoch."""
        self._journal = journal
        self._proxy = proxy
        self._watch = watch
        self._limits = limits
        self._now = now
        self._posts: set[asyncio.Task[None]] = set()

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

    async def list_tasks(self, owner: str, status: Status | None, limit: int, cursor: str | None) -> Page:
        """The owner's tasks, newest first."""
        return await self._journal.page(owner, status, limit, cursor)

    async def drain(self, seconds: float) -> None:
        """Wait up to `seconds` for the POSTs in flight, so that their outcomes are recorded."""
        if self._posts:
            await asyncio.wait(self._posts, timeout=seconds)
        for post in self._posts:
            post.cancel()
        await asyncio.gather(*self._posts, return_exceptions=True)

    # ------------------------------------------------------------------------------------------- the submit

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
        claimed: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()
        self._spawn(self._submit(task, request, allow_duplicate, claimed))
        patience = wait.until if wait.seconds else wait.began + ANSWER_SECONDS
        try:
            async with asyncio.timeout_at(patience):
                claim = await claimed
        except TimeoutError:
            # Cancelling `claimed` made `_submit` withdraw: see there.
            raise StorageUnavailable("the journal did not answer in time, so nothing was submitted") from None
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

    async def _submit(self, task: Task, request: Submit, allow_duplicate: bool, claimed: asyncio.Future[Claim]) -> None:
        """The order of side effects. Runs in a task of its own; the caller only waits for what it records."""
        try:
            claim = await self._journal.claim(
                task, _request_key(task, request), allow_duplicate=allow_duplicate, limits=self._limits
            )
        except Exception as refusal:  # noqa: BLE001 - whatever it is, the caller is told and nothing is sent
            if not claimed.done():
                claimed.set_exception(refusal)
            return
        if claimed.done():
            # The caller left before anything was spent: neither is it spent now.
            if claim.is_new:
                await self._record(task, Refused(_WITHDRAWN))
            return
        claimed.set_result(claim)
        if claim.is_new:
            await self._record(task, await self._post(request))

    async def _post(self, request: Submit) -> Accepted | Refused | Doubtful:
        try:
            return await self._proxy.submit(request)
        except Exception:
            log.exception("submit_failed")
            return Doubtful("this server failed while it submitted")

    async def _record(self, task: Task, outcome: Accepted | Refused | Doubtful) -> None:
        """Write down what became of a submit, again and again until it is written; then tell."""

        def settle(known: Task) -> Task:
            return _settle(known, outcome, self._now())

        while True:
            try:
                settled = await self._journal.update(task.submission_id, settle)
                break
            except StorageUnavailable as failure:
                log.error("outcome_not_recorded", submission_id=task.submission_id, reason=failure.message)  # noqa: TRY400 - the reason says it all
                self._watch.publish(settle(task))
                await asyncio.sleep(RECORD_AGAIN_SECONDS)
        log.info(
            "submitted",
            submission_id=task.submission_id,
            task_id=settled.task_id,
            status=settled.status,
            code=settled.failure.code if settled.failure else None,
        )
        if settled.is_watched:
            self._watch.follow(settled)
        self._watch.publish(settled)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        post = asyncio.create_task(work)
        self._posts.add(post)
        post.add_done_callback(self._posts.discard)

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
        look = await self._proxy.look(task_id, seconds=wait.seconds or ANSWER_SECONDS)
        match look:
            case Unknown():
                raise TaskNotFound(f"neither this server nor the proxy knows a task {task_id}")
            case Trouble():
                raise ERRORS[look.code](
                    f"the look at task {task_id} failed: {look.message}", retry_after_seconds=look.retry_after
                )
            case Sighting():
                now = self._now()
                blank = Task(
                    submission_id=f"sub_{uuid.uuid4().hex}",
                    status=Status.QUEUED,
                    task_id=task_id,
                    owner=owner,
                    updated_at=now,
                )
                adopted = await self._journal.adopt(merge(blank, look, now))
                self._watch.publish(adopted)
                return adopted

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


_WITHDRAWN = Failure("withdrawn", "the caller left before anything was submitted")


def _settle(task: Task, outcome: Accepted | Refused | Doubtful, now: float) -> Task:
    """The row after its outcome; unchanged where another process or a person has settled it already."""
    match outcome:
        case Accepted():
            return accept(task, outcome.task_id, now, outcome.warnings) if _may(task, Status.QUEUED) else task
        case Refused():
            return refuse(task, outcome.failure, now) if _may(task, Status.REFUSED) else task
        case Doubtful():
            return doubt(task, outcome.reason, now) if _may(task, Status.UNCONFIRMED) else task


def _may(task: Task, status: Status) -> bool:
    return status in MOVES[task.status]


def _raise_unless_accepted(task: Task) -> None:
    """A submit that the proxy did not take, or may have taken, is an error of whoever asked for it."""
    failure = task.failure
    if task.status is Status.REFUSED and failure is not None:
        kind = ERRORS.get(failure.code, StorageUnavailable)
        raise kind(failure.message, retry_after_seconds=failure.retry_after_seconds, submission_id=task.submission_id)
    if task.status is Status.UNCONFIRMED:
        reason = failure.message if failure else "the answer was lost"
        raise Unconfirmed(f"the submit may have been accepted and charged ({reason})", submission_id=task.submission_id)


def _request_key(task: Task, request: Submit) -> str:
    """What makes two requests identical: the owner, the kind, and what it is made from.

    The same change asked for by name or as shorthand is one purchase, so the endpoint is left out.
    """
    subject = request.body if task.kind is Kind.IMAGINE else {"parent": task.parent_id, "index": task.index}
    text = json.dumps([task.owner, task.kind, subject], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
