"""One watcher per open task, any number of waiters, and the resumption of both after a restart.

Owns the looks at the proxy and who is told of what they show. Several processes share the open tasks through
the journal's leases: each task is watched by one of them, and the others hear of it from the journal. Knows
nothing of MCP, nor of how a task was bought.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from mj_mcp.cadence import MIN_GAP_SECONDS, next_look
from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import Journal
from mj_mcp.proxy import Look, Proxy, Trouble, Unknown
from mj_mcp.tasks import Sighting, Status, Task, merge, stall

log = structlog.get_logger("mj_mcp.watch")

Tick = Callable[[Task], Awaitable[None]]

SWEEP_SECONDS = 0.5
"""How often the journal is asked for what other processes changed, left or lost."""

IDLE_SWEEP_SECONDS = 2.0
TICK_SECONDS = 1.0
NEVER_LOOKED = float("-inf")
MAX_LOOKS_AT_ONCE = 16
UNKNOWN_LOOKS_TOLERATED = 5
STALLED_AFTER_SECONDS = 600.0
NUDGE_GAP_SECONDS = 1.0
"""A caller who asks again and again brings no more looks than this."""


@dataclass(slots=True)
class _Following:
    """What one watcher knows beside the task itself. Times are of the event loop's clock."""

    looked_at: float
    failures: int = 0
    unknown: int = 0
    trouble: Trouble | None = None
    nudged: bool = False
    lost: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Watch:
    """Watches the open tasks that this process holds, and tells everybody who waits."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy,
        *,
        poll_seconds: float,
        now: Callable[[], float],
        on_success: Callable[[Task], None],
    ) -> None:
        """`now` gives seconds since the epoch; waits are timed by the event loop's own clock.

        `on_success` is called with every task that was seen to succeed here, before anybody hears of it.
        """
        self._journal = journal
        self._proxy = proxy
        self._poll_seconds = poll_seconds
        self._now = now
        self._on_success = on_success
        self._following: dict[str, _Following] = {}
        self._known: dict[str, Task] = {}
        self._pulses: dict[str, asyncio.Event] = {}
        self._waiters: Counter[str] = Counter()
        self._looks: Counter[str] = Counter()
        self._looking = asyncio.Semaphore(MAX_LOOKS_AT_ONCE)
        self._wake = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            while True:
                await self._sweep()
                busy = self._following or self._waiters
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_SECONDS if busy else IDLE_SWEEP_SECONDS):
                        await self._wake.wait()

    def publish(self, task: Task) -> None:
        """Tell everybody in this process who waits for `task`; begin to watch it if it was just accepted."""
        sid = task.submission_id
        if self._waiters[sid] or sid in self._following:
            self._known[sid] = task
        if pulse := self._pulses.pop(sid, None):
            pulse.set()
        if task.is_watched and sid not in self._following and self._group is not None:
            self._wake.set()

    def follow(self, task: Task) -> None:
        """Watch a task that was accepted this moment: its first look is as far away as any other."""
        self._begin(task, asyncio.get_running_loop().time())

    def trouble(self, task: Task) -> tuple[int, Trouble] | None:
        """How many looks have failed since the last good one, and how the last one failed."""
        following = self._following.get(task.submission_id)
        return (following.failures, following.trouble) if following and following.trouble else None

    async def wait(
        self,
        task: Task,
        until: float,
        *,
        enough: Callable[[Task], bool] = lambda task: not task.is_moving,
        look_now: bool = False,
        one_look: bool = False,
        tick: Tick | None = None,
    ) -> tuple[Task, int]:
        """`task` as soon as it is `enough`, or as last seen at the event loop's time `until`; and the looks made.

        Args:
            task: the task as the caller knows it.
            until: when to give up waiting, on the event loop's clock.
            enough: what to wait for.
            look_now: ask for a look at once instead of at the usual time.
            one_look: come back after the first look, whatever it shows.
            tick: awaited about once a second with the task as last seen.
        """
        sid = task.submission_id
        clock = asyncio.get_running_loop().time
        with self._attending(sid):
            looks = self._looks[sid]
            self._nudge(sid, now=look_now)
            # Read after registering: a change between the caller's own read and this one is not missed.
            with suppress(StorageUnavailable):
                task = await self._journal.find(sid, task.owner) or task
            while not enough(task) and (left := until - clock()) > 0:
                looked = await self._pulse(sid, min(left, TICK_SECONDS) if tick else left)
                task = self._known.get(sid, task)
                if one_look and looked:
                    break
                if tick is not None and not enough(task):
                    await tick(task)
            return task, self._looks[sid] - looks

    @contextmanager
    def _attending(self, sid: str) -> Iterator[None]:
        self._waiters[sid] += 1
        try:
            yield
        finally:
            self._waiters[sid] -= 1
            self._forget(sid)

    async def _pulse(self, sid: str, seconds: float) -> bool:
        """Wait for the next look or change, at most so long; whether there was one."""
        pulse = self._pulses.setdefault(sid, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await pulse.wait()
        return pulse.is_set()

    def _nudge(self, sid: str, *, now: bool) -> None:
        self._wake.set()
        if following := self._following.get(sid):
            following.nudged = following.nudged or now
            following.wake.set()

    def _forget(self, sid: str) -> None:
        if not self._waiters[sid]:
            del self._waiters[sid]
            if sid not in self._following:
                self._known.pop(sid, None)
                self._pulses.pop(sid, None)
                del self._looks[sid]

    async def _sweep(self) -> None:
        followed = set(self._following)
        try:
            for task in await self._journal.changes():
                self.publish(task)
            held = {task.submission_id: task for task in await self._journal.tend(self._now())}
        except StorageUnavailable as failure:
            log.warning("journal_unavailable", reason=failure.message)
            return
        for task in held.values():
            if task.is_watched:
                self._begin(task, NEVER_LOOKED)
            else:
                self.publish(task)  # settled for a dead process: whoever repeated its call waits here
        for sid in followed & self._following.keys() - held.keys():
            # Over, or taken by another process that thought this one dead.
            self._following[sid].lost = True
            self._following[sid].wake.set()

    def _begin(self, task: Task, looked_at: float) -> None:
        if self._group is None or task.submission_id in self._following or not task.is_watched:
            return
        self._following[task.submission_id] = _Following(looked_at)
        self._known[task.submission_id] = task
        self._group.create_task(self._follow(task))

    async def _follow(self, task: Task) -> None:
        """Look until the task is over. A defect ends this watcher only; the next sweep begins another."""
        sid = task.submission_id
        following = self._following[sid]
        try:
            while task.is_watched and await self._due(task, following):
                async with self._looking:
                    look = await self._proxy.look(task.task_id or "")
                following.looked_at = asyncio.get_running_loop().time()
                self._looks[sid] += 1
                task = await self._note(self._known.get(sid, task), look, following)
                if task.status is Status.SUCCEEDED:
                    self._on_success(task)
                self.publish(task)
        except Exception:
            log.exception("watcher_failed", task_id=task.task_id)
            await asyncio.sleep(MIN_GAP_SECONDS)
        finally:
            del self._following[sid]
            self._forget(sid)

    async def _due(self, task: Task, following: _Following) -> bool:
        """Sleep until the next look is due; a new waiter or a wish moves it nearer. False: not ours any more."""
        while not following.lost:
            gap = next_look(
                poll_seconds=self._poll_seconds,
                attended=self._waiters[task.submission_id] > 0,
                stalled=task.status is Status.STALLED,
                failures=following.failures,
                retry_after=following.trouble.retry_after if following.trouble else None,
            )
            if following.nudged:
                gap = min(gap, NUDGE_GAP_SECONDS)
            left = following.looked_at + gap - asyncio.get_running_loop().time()
            if left <= 0:
                following.nudged = False
                return True
            following.wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await following.wake.wait()
        return False

    async def _note(self, task: Task, look: Look, following: _Following) -> Task:
        """What is known after this look, written down when it is news."""
        following.trouble = None
        match look:
            case Sighting():
                following.failures = following.unknown = 0
                change = self._merging(look)
            case Unknown():
                following.unknown += 1
                following.failures += 1
                if following.unknown < UNKNOWN_LOOKS_TOLERATED or task.status is Status.STALLED:
                    return task
                change = self._stalling("the proxy does not know this task; it may have forgotten it")
            case Trouble():
                following.failures += 1
                following.trouble = look
                return task
        changed = change(task)
        if changed == task:
            return task
        try:
            return await self._journal.update(task.submission_id, change)
        except StorageUnavailable as failure:
            # Whoever waits is told all the same; the row is written by a later look.
            log.warning("look_not_recorded", task_id=task.task_id, reason=failure.message)
            following.failures += 1
            self.publish(changed)
            return task

    def _merging(self, sighting: Sighting) -> Callable[[Task], Task]:
        def change(task: Task) -> Task:
            now = self._now()
            merged = merge(task, sighting, now)
            still = merged.status in {Status.QUEUED, Status.PROCESSING}
            if still and now - merged.updated_at > STALLED_AFTER_SECONDS:
                return stall(merged, f"nothing has moved for {STALLED_AFTER_SECONDS / 60:.0f} minutes", now)
            return merged

        return change

    def _stalling(self, warning: str) -> Callable[[Task], Task]:
        def change(task: Task) -> Task:
            return stall(task, warning, self._now()) if task.status in {Status.QUEUED, Status.PROCESSING} else task

        return change
