"""The order of a submit: nothing is paid for twice, and nothing that is paid for is lost.

1. Limits, duplicate claim and row in one transaction of the journal.
2. One POST, in a task of its own that no cancelled caller can take down.
3. Its outcome is recorded: accepted, refused, or unconfirmed.
4. Only then is the caller answered. Nothing is ever posted again automatically.

Owns that order. Knows nothing of prompts, of waiting, of MCP, HTTP or SQL.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from mj_mcp.errors import Busy, MjError, StorageUnavailable, Unauthorized
from mj_mcp.events import Observer, OnProgress, Submitted, ignore
from mj_mcp.journal import Claim, Journal, Limits
from mj_mcp.journal.protocol import KEPT_SECONDS
from mj_mcp.polling.poller import PROGRESS_SECONDS, Poller
from mj_mcp.proxy import Accepted, Order, OutcomeUnknown, Proxy, Refused
from mj_mcp.submits.lookup import AFTER_SECONDS, Lookup
from mj_mcp.tasks import MOVES, Failure, Kind, Status, Task, accept, mark_unconfirmed, refuse

log = structlog.get_logger("mj_mcp.submits")

RECORD_AGAIN_SECONDS = 1.0

QUEUE_PACE_SECONDS = 0.5
"""How often a queued request asks for a slot."""

QUEUE_AGAIN_SECONDS = 5.0
"""`Retry-After` for a queued request: short, because its place in the queue is kept only for a while."""

LOOKUP_SECONDS = 5.0
"""How long the proxy may take to list its tasks before a lost answer is recorded as unconfirmed."""

PAUSE_SECONDS = 60.0
"""How long submits pause after the proxy refused the key or the account. Polls continue."""

ACCOUNT_STATUSES = frozenset({401, 402})
"""The key is wrong, or the account is empty. A 403 may concern one request only, so the proxy is asked."""


class Submits:
    """Every submit of this process, from the claim to its recorded outcome."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy,
        poller: Poller,
        *,
        limits: Limits,
        now: Callable[[], float],
        observe: Observer = ignore,
        clock: Callable[[], float] = time.monotonic,
        look_up_after: Sequence[float] = AFTER_SECONDS,
    ) -> None:
        """`now`: seconds since the epoch. `observe` receives every outcome. `clock`: seconds, to time a pause.

        `look_up_after`: how long after a lost answer the submit is looked up, in seconds, each after the one before.
        """
        self._journal = journal
        self._proxy = proxy
        self._poller = poller
        self.lookup = Lookup(journal, proxy, poller, now=now, after_seconds=look_up_after)
        self.limits = limits
        self._now = now
        self._observe = observe
        self._clock = clock
        self._posts: set[asyncio.Task[None]] = set()
        self._unanswered: set[str] = set()
        self._paused_until = float("-inf")
        self._stopping = False

    async def submit(
        self,
        task: Task,
        order: Order,
        *,
        allow_duplicate: bool,
        until: float,
        answer_by: float,
        queue: bool,
        on_progress: OnProgress | None = None,
    ) -> tuple[Claim, Task, int]:
        """Claim the request, post it, and wait for the answer. Returns the claim and its task at that time.

        The claim must be made by `until` on the event loop's clock; the answer is awaited until `answer_by`. When all
        slots are taken, a caller with `queue` waits for one, and `on_progress` gets its position. A caller that gets
        `Busy` keeps its position for a while, so the same call resumes there. If the caller is cancelled or out of time
        before the claim is made, nothing is bought, and the withdrawn claim answers no other call.

        Raises:
            Busy, LimitReached, StorageUnavailable: nothing was submitted.
        """
        while True:
            claimed = asyncio.get_running_loop().create_future()
            asked = _Asked(task, order, _request_key(task), allow_duplicate, queue, claimed)
            claim = await self._begin(asked, until, on_progress)
            answered, polls = await self._poller.wait(
                claim.task, answer_by, enough=self._is_answered, on_progress=on_progress
            )
            if not self._is_answered(answered):
                answered = replace(answered, status=Status.SUBMITTING, failure=None)
            if claim.is_new or not _is_withdrawn(answered):
                return claim, answered, polls

    def release(self) -> None:
        """End the queue: a request that is not claimed yet is not submitted any more."""
        self._stopping = True

    async def drain(self, seconds: float) -> None:
        """Wait up to `seconds` for the POSTs in flight, so that their outcomes are recorded. Ends the queue."""
        self.release()
        if self._posts:
            await asyncio.wait(self._posts, timeout=seconds)
        for post in self._posts:
            post.cancel()
        await asyncio.gather(*self._posts, return_exceptions=True)

    def _is_answered(self, task: Task) -> bool:
        """Whether the proxy's answer is known. Another process may mark it lost while this one still waits for it."""
        awaited_here = task.status is Status.UNCONFIRMED and task.submission_id in self._unanswered
        return task.status is not Status.SUBMITTING and not awaited_here

    async def _begin(self, asked: _Asked, until: float, on_progress: OnProgress | None) -> Claim:
        """Return as soon as the claim is made. The POST continues, and its outcome is published."""
        post = asyncio.create_task(self._submit(asked))
        self._posts.add(post)
        post.add_done_callback(self._ended)
        try:
            async with asyncio.timeout_at(until):
                while not asked.claimed.done():
                    await asyncio.wait({asked.claimed}, timeout=PROGRESS_SECONDS)
                    if on_progress is not None and asked.position and not asked.claimed.done():
                        await on_progress(asked.task, asked.position)
        except TimeoutError:
            if not asked.claimed.done():
                asked.keeps_slot = True
                raise _no_claim(asked) from None
        finally:
            asked.claimed.cancel()  # makes `_submit` withdraw, unless the claim is made
        return asked.claimed.result()

    def _ended(self, post: asyncio.Task[None]) -> None:
        self._posts.discard(post)
        if not post.cancelled() and (failure := post.exception()) is not None:
            log.error("submit_failed", exc_info=failure)  # the row stays `submitting`; the next start settles it

    async def _submit(self, asked: _Asked) -> None:
        """The side effects in order. Runs in its own task; the caller only waits for what it records."""
        try:
            claim = await self._claim(asked)
        except Exception as refusal:  # noqa: BLE001 - the caller gets the error, and nothing is sent
            if not asked.claimed.done():
                asked.claimed.set_exception(refusal)
            return
        if claim is None:
            return
        if asked.claimed.done():
            # The caller left before anything was spent, so nothing is spent.
            if claim.is_new:
                await self._record(asked.task, Refused(_WITHDRAWN))
            return
        asked.claimed.set_result(claim)
        if claim.is_new:
            self._unanswered.add(asked.task.submission_id)
            self._poller.publish(claim.task)
            outcome = await self._post(asked)
            refused_by = outcome.status if isinstance(outcome, Refused) else None
            if refused_by in ACCOUNT_STATUSES:
                self._begin_pause()
            try:
                await self._record(asked.task, outcome)
            finally:
                self._unanswered.discard(asked.task.submission_id)
            if refused_by == 403 and await self._proxy.refuses_key():
                self._begin_pause()

    async def _claim(self, asked: _Asked) -> Claim | None:
        """The claim, as soon as there is a slot for it. None when the caller leaves the queue."""
        while not self._stopping:
            claim = await self._journal.claim(
                asked.task,
                asked.key,
                allow_duplicate=asked.allow_duplicate,
                limits=replace(self.limits, pause=self._pause()),
            )
            if isinstance(claim, Claim):
                return claim
            asked.position = claim.position
            if not asked.queue:
                raise _no_claim(asked)
            await asyncio.wait({asked.claimed}, timeout=QUEUE_PACE_SECONDS)
            if asked.claimed.done():
                if not asked.keeps_slot:
                    await self._journal.leave(asked.key)
                return None
        if asked.position:
            await self._journal.leave(asked.key)
        raise Busy("this server is stopping; nothing was submitted")

    async def _post(self, asked: _Asked) -> Accepted | Refused | OutcomeUnknown:
        """The outcome of the POST. If its answer is lost, the proxy may list the task with our submission id."""
        state = asked.task.submission_id
        try:
            outcome = await self._proxy.submit(asked.order, state)
            if isinstance(outcome, OutcomeUnknown) and (task_id := await self._proxy.find(state, LOOKUP_SECONDS)):
                log.info("submit_found", submission_id=state, task_id=task_id)
                return Accepted(task_id)
        except Exception:
            log.exception("submit_failed")
            return OutcomeUnknown("this server failed while it submitted")
        return outcome

    def _begin_pause(self) -> None:
        self._paused_until = self._clock() + PAUSE_SECONDS
        log.warning("submits_paused", seconds=PAUSE_SECONDS)

    def _pause(self) -> MjError | None:
        left = self._paused_until - self._clock()
        if left <= 0:
            return None
        return Unauthorized(
            "the proxy refused the key or the account, so submits pause; nothing was submitted",
            retry_after_seconds=float(math.ceil(left)),
        )

    async def _record(self, task: Task, outcome: Accepted | Refused | OutcomeUnknown) -> None:
        """Record the outcome of a submit, retrying until it is written. Then publish it."""

        def settle(known: Task) -> Task:
            return _settle(known, outcome, self._now())

        while True:
            try:
                settled = await self._journal.update(task.submission_id, settle)
                break
            except StorageUnavailable as failure:
                known = settle(task)
                log.error(  # noqa: TRY400 - the reason says it all
                    "outcome_not_recorded",
                    submission_id=task.submission_id,
                    task_id=known.task_id,
                    reason=failure.message,
                )
                self._unanswered.discard(task.submission_id)
                self._poller.publish(known)
                await asyncio.sleep(RECORD_AGAIN_SECONDS)
        log.info(
            "submitted",
            submission_id=task.submission_id,
            task_id=settled.task_id,
            status=settled.status,
            code=settled.failure.code if settled.failure else None,
        )
        self._unanswered.discard(task.submission_id)
        self._observe(Submitted(settled))
        if settled.is_polled:
            self._poller.follow(settled)
        self._poller.publish(settled)


@dataclass(slots=True)
class _Asked:
    """One call that wants to submit. `claimed` is done when its claim is made or refused, or its caller has left."""

    task: Task
    order: Order
    key: str
    allow_duplicate: bool
    queue: bool
    claimed: asyncio.Future[Claim]
    position: int = 0
    keeps_slot: bool = False


def _no_claim(asked: _Asked) -> MjError:
    """The error for a claim that was not made in time."""
    if not asked.position:
        return StorageUnavailable("the journal did not answer in time; nothing was submitted")
    return Busy(
        "this server has as many open tasks as it may have (MJ_MAX_OPEN_TASKS). This request is number"
        f" {asked.position} in the queue and keeps its slot for {KEPT_SECONDS:g} s: call again with the same"
        " arguments. Nothing was submitted",
        retry_after_seconds=QUEUE_AGAIN_SECONDS,
    )


_WITHDRAWN = Failure("withdrawn", "the caller left before anything was submitted")


def _is_withdrawn(task: Task) -> bool:
    return task.status is Status.REFUSED and task.failure is not None and task.failure.code == _WITHDRAWN.code


def _settle(task: Task, outcome: Accepted | Refused | OutcomeUnknown, now: float) -> Task:
    """The row with its outcome. Unchanged where another process or a person has settled it already."""
    match outcome:
        case Accepted():
            return accept(task, outcome.task_id, now, outcome.warnings) if _may(task, Status.QUEUED) else task
        case Refused():
            return refuse(task, outcome.failure, now) if _may(task, Status.REFUSED) else task
        case OutcomeUnknown():
            return mark_unconfirmed(task, outcome.reason, now) if _may(task, Status.UNCONFIRMED) else task


def _may(task: Task, status: Status) -> bool:
    return status in MOVES[task.status]


def _request_key(task: Task) -> str:
    """What makes two requests identical: the owner, the kind, and what it is made from.

    The endpoint is left out: the same change requested by name or as shorthand is one purchase. So are the case and the
    spaces of a label.
    """
    subject: dict[str, str | int | None]
    match task.kind:
        case Kind.IMAGINE | None:  # a description has no kind
            subject = {"prompt": task.prompt}
        case Kind.BUTTON:
            label = " ".join((task.button or "").lower().split())
            subject = {"parent": task.parent_id, "button": label, "prompt": task.prompt}
        case _:
            subject = {"parent": task.parent_id, "index": task.index}
    text = json.dumps([task.owner, task.kind, subject], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
