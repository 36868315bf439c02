"""The order of a submit, in which nothing is paid for twice and nothing paid for is lost.

1. Limits, duplicate claim and row in one transaction of the journal.
2. One POST, in a task of its own that no cancelled caller can take down.
3. Its outcome is recorded: accepted, refused, or in doubt.
4. Only then does anybody hear of it. Nothing is ever posted again by itself.

Owns that order. Knows nothing of prompts, of waiting, of MCP, HTTP or SQL.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from mj_mcp.errors import Busy, MjError, PromptRefused, StorageUnavailable, Unauthorized
from mj_mcp.happenings import Observer, Submitted, ignore
from mj_mcp.journal import Claim, Journal, Limits
from mj_mcp.news import Tick
from mj_mcp.proxy import Accepted, Doubtful, Proxy, Refused, Submit
from mj_mcp.tasks import MOVES, Failure, Kind, Status, Task, accept, doubt, refuse
from mj_mcp.watch import TICK_SECONDS, Watch

log = structlog.get_logger("mj_mcp.submits")

RECORD_AGAIN_SECONDS = 1.0

QUEUE_PACE_SECONDS = 0.5
"""How often a request in the queue asks for its place."""

QUEUE_AGAIN_SECONDS = 5.0
"""When to call again after the queue: soon, for waiting is what gets a place."""

PAUSE_SECONDS = 60.0
FAILED_IN_A_ROW = 5
"""After so many, or after one refused key, submits pause instead of hammering; looks go on."""


class Submits:
    """Every submit of this process, from the claim to its recorded outcome."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy,
        watch: Watch,
        *,
        limits: Limits,
        now: Callable[[], float],
        observe: Observer = ignore,
    ) -> None:
        """`now` gives seconds since the epoch; `observe` is told of every outcome."""
        self._journal = journal
        self._proxy = proxy
        self._watch = watch
        self.limits = limits
        self._now = now
        self._observe = observe
        self._posts: set[asyncio.Task[None]] = set()
        self._failed = 0
        self._pause: tuple[float, type[MjError], str] | None = None
        self._stopping = False

    async def begin(
        self, task: Task, request: Submit, *, allow_duplicate: bool, until: float, queue: bool, tick: Tick | None = None
    ) -> Claim:
        """Claim the request and post it; returns as soon as it is claimed, by the event loop's time `until`.

        Where all places are taken, a caller who will `queue` waits for one until then, and `tick` is told its place.
        The outcome is published to whoever waits for the claimed task. A caller that is cancelled, or out of
        time, before the claim is made has bought nothing.

        Raises:
            Busy, LimitReached, StorageUnavailable: nothing was submitted.
        """
        asked = _Asked(task, request, allow_duplicate, queue, asyncio.get_running_loop().create_future())
        post = asyncio.create_task(self._submit(asked))
        self._posts.add(post)
        post.add_done_callback(self._posts.discard)
        try:
            async with asyncio.timeout_at(until):
                while not asked.claimed.done():
                    await asyncio.wait({asked.claimed}, timeout=TICK_SECONDS)
                    if tick is not None and asked.place and not asked.claimed.done():
                        await tick(task, asked.place)
        except TimeoutError:
            if not asked.claimed.done():
                raise _no_claim(asked) from None
        finally:
            asked.claimed.cancel()  # which makes `_submit` withdraw, unless the claim is made
        return asked.claimed.result()

    def release(self) -> None:
        """Send the queue off: nothing that is not claimed yet is submitted any more."""
        self._stopping = True

    async def drain(self, seconds: float) -> None:
        """Wait up to `seconds` for the POSTs in flight, so that their outcomes are recorded; the queue is sent off."""
        self.release()
        if self._posts:
            await asyncio.wait(self._posts, timeout=seconds)
        for post in self._posts:
            post.cancel()
        await asyncio.gather(*self._posts, return_exceptions=True)

    async def _submit(self, asked: _Asked) -> None:
        """The order of side effects. Runs in a task of its own; the caller only waits for what it records."""
        try:
            claim = await self._claim(asked)
        except Exception as refusal:  # noqa: BLE001 - whatever it is, the caller is told and nothing is sent
            if not asked.claimed.done():
                asked.claimed.set_exception(refusal)
            return
        if claim is None:
            return
        if asked.claimed.done():
            # The caller left before anything was spent: neither is it spent now.
            if claim.is_new:
                await self._record(asked.task, Refused(_WITHDRAWN))
            return
        asked.claimed.set_result(claim)
        if claim.is_new:
            self._watch.publish(claim.task)
            outcome = await self._post(asked.request)
            self._learn(outcome)
            await self._record(asked.task, outcome)

    async def _claim(self, asked: _Asked) -> Claim | None:
        """The claim, as soon as there is a place for it; None when the caller leaves the queue."""
        while not self._stopping:
            claim = await self._journal.claim(
                asked.task,
                _request_key(asked.task),
                allow_duplicate=asked.allow_duplicate,
                limits=replace(self.limits, pause=self._paused()),
                queue=asked.queue,
            )
            if isinstance(claim, Claim):
                return claim
            asked.place = claim.position
            await asyncio.wait({asked.claimed}, timeout=QUEUE_PACE_SECONDS)
            if asked.claimed.done():
                await self._journal.leave(asked.task.submission_id)
                return None
        if asked.place:
            await self._journal.leave(asked.task.submission_id)
        raise Busy("this server is stopping, so nothing was submitted")

    async def _post(self, request: Submit) -> Accepted | Refused | Doubtful:
        try:
            return await self._proxy.submit(request)
        except Exception:
            log.exception("submit_failed")
            return Doubtful("this server failed while it submitted")

    def _learn(self, outcome: Accepted | Refused | Doubtful) -> None:
        """Pause after a refused key, or after too many submits in a row that came to nothing."""
        code = outcome.failure.code if isinstance(outcome, Refused) else None
        if code in {PromptRefused.code, Busy.code}:
            return  # the proxy works; it is this prompt, or this moment, that it refused
        self._failed = 0 if isinstance(outcome, Accepted) else self._failed + 1
        if code == Unauthorized.code:
            self._begin_pause(Unauthorized, "the proxy refused the key or the account")
        elif self._failed >= FAILED_IN_A_ROW:
            self._begin_pause(Busy, f"the last {self._failed} submits came to nothing")

    def _begin_pause(self, kind: type[MjError], why: str) -> None:
        self._failed = 0
        self._pause = (asyncio.get_running_loop().time() + PAUSE_SECONDS, kind, why)
        log.warning("submits_paused", seconds=PAUSE_SECONDS, reason=why)

    def _paused(self) -> MjError | None:
        if self._pause is None:
            return None
        until, kind, why = self._pause
        left = until - asyncio.get_running_loop().time()
        if left <= 0:
            return None
        return kind(f"{why}, so submits pause; nothing was submitted", retry_after_seconds=float(math.ceil(left)))

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
        self._observe(Submitted(settled))
        if settled.is_watched:
            self._watch.follow(settled)
        self._watch.publish(settled)


@dataclass(slots=True)
class _Asked:
    """One call's wish to buy. `claimed` is done when its claim is made or refused, or when its caller has left."""

    task: Task
    request: Submit
    allow_duplicate: bool
    queue: bool
    claimed: asyncio.Future[Claim]
    place: int = 0


def _no_claim(asked: _Asked) -> MjError:
    """Why a claim was not made in time."""
    if not asked.place:
        return StorageUnavailable("the journal did not answer in time, so nothing was submitted")
    return Busy(
        f"as many tasks are open as this server keeps at once (MJ_MAX_OPEN_TASKS), and number {asked.place} in the"
        " queue was not served in the time of this call, so nothing was submitted",
        retry_after_seconds=QUEUE_AGAIN_SECONDS,
    )


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


def _request_key(task: Task) -> str:
    """What makes two requests identical: the owner, the kind, and what it is made from.

    The same change asked for by name or as shorthand is one purchase, so the endpoint is left out.
    """
    subject = {"prompt": task.prompt} if task.kind is Kind.IMAGINE else {"parent": task.parent_id, "index": task.index}
    text = json.dumps([task.owner, task.kind, subject], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
