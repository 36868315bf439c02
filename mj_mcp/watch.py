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
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from mj_mcp.cadence import MIN_GAP
from mj_mcp.errors import StorageUnavailable, Unauthorized
from mj_mcp.happenings import Load
from mj_mcp.jobtimes import MEMORY
from mj_mcp.journal import Journal
from mj_mcp.news import Reader, Tick
from mj_mcp.pace import GIVE_UP_SECONDS, REPLAN_SECONDS, Following, Pace
from mj_mcp.proxy import Look, Proxy, Trouble, Unknown
from mj_mcp.tasks import Kind, Sighting, Status, Task, give_up, merge, resume, stall_if_running, stall_when_idle
from mj_mcp.turns import Turns

log = structlog.get_logger("mj_mcp.watch")


SWEEP_SECONDS = 0.5
"""How often the journal is asked for what other processes changed, left or lost."""

IDLE_SWEEP_SECONDS = 2.0
TICK_SECONDS = 1.0
LAST_LOOK_SECONDS = 0.7
"""A wait ends with a look so long before its end: the answer is as fresh as it can be."""
NEVER_LOOKED = float("-inf")
UNKNOWN_LOOKS_TOLERATED = 5
FORGOTTEN = "the proxy does not know this task; it may have forgotten it"
NUDGE_GAP_SECONDS = MIN_GAP
"""A caller who asks again and again brings no more looks than this."""


@dataclass(slots=True)
class _Following(Following):
    """A watcher's part in the conversation with those who wait."""

    unknown: int = 0
    trouble: Trouble | None = None
    nudged: bool = False
    lost: bool = False
    unrecorded: bool = False
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
        on_end: Reader,
        tell: Reader,
    ) -> None:
        """`now`: Unix time. `on_end` hears of each end that is seen here, before anybody; `tell` of every change."""
        self._journal, self._proxy = journal, proxy
        self._now, self._on_end, self._tell = now, on_end, tell
        self._pace = Pace(poll_seconds)
        self._following: dict[str, _Following] = {}
        self._known: dict[str, Task] = {}
        self._pulses: dict[str, asyncio.Event] = {}
        self._waiters: Counter[str] = Counter()
        self._looks: Counter[str] = Counter()
        self._turns = Turns()
        self._wake = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._released = False

    def load(self) -> Load:
        """How much is held now. Each list is made in one step, so any thread may ask."""
        return Load(len(self._following), sum(list(self._waiters.values())))

    def remaining(self, task: Task) -> float | None:
        """Seconds until such a job is usually done; None when nothing is known, or it is later than any known."""
        if not task.is_watched or task.submitted_at is None:
            return None
        return self._pace.remaining(task, self._age(task), asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Watch until cancelled. A defect in one sweep is logged; the next one is made all the same."""
        async with asyncio.TaskGroup() as self._group:
            await self._survive(self._recall)
            self._group.create_task(self._journal.listen(self._wake.set))
            while True:
                await self._survive(self._sweep)
                busy = self._following or self._waiters
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_SECONDS if busy else IDLE_SWEEP_SECONDS):
                        await self._wake.wait()

    def publish(self, task: Task, *, news: bool = True) -> None:
        """Tell all here who wait for `task`, and of `news` the readers; begin to watch it if it was just accepted."""
        sid = task.submission_id
        if self._waiters[sid] or sid in self._following:
            self._known[sid] = task
        if pulse := self._pulses.pop(sid, None):
            pulse.set()
        if task.is_watched and sid not in self._following and self._group is not None:
            self._wake.set()
        if news:
            self._tell(task)

    def follow(self, task: Task) -> None:
        """Watch a task that was accepted this moment: its first look is as far away as any other."""
        self._begin(task, asyncio.get_running_loop().time())

    def release(self) -> None:
        """End every wait, also those to come: each is answered with what is known. Looks go on."""
        self._released = True
        for pulse in self._pulses.values():
            pulse.set()

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

        `look_now` asks for a look at once instead of at the usual time; with `one_look` the first look ends the wait,
        whatever it shows. A look that the proxy refuses ends it in any case. `tick` is awaited about once a second.
        """
        sid, clock = task.submission_id, asyncio.get_running_loop().time
        with self._attending(sid):
            looks = self._looks[sid]
            self._nudge(sid, now=look_now)
            last_look = until - LAST_LOOK_SECONDS if until - clock() > 2 * LAST_LOOK_SECONDS else None
            # Read after registering: a change between the caller's own read and this one is not missed.
            task = await self._read_anew(task)
            while not enough(task) and (left := until - clock()) > 0 and not self._released:
                if last_look is not None and clock() >= last_look:
                    last_look = None
                    self._nudge(sid, now=True)
                pause = left if last_look is None else last_look - clock()
                looked = await self._pulse(sid, max(0.0, min(pause, TICK_SECONDS) if tick else pause))
                task = self._known.get(sid, task)
                if looked and (one_look or self._is_refused(sid)):
                    break
                if tick is not None and not enough(task):
                    await tick(task)
            return task, self._looks[sid] - looks

    async def _read_anew(self, task: Task) -> Task:
        """The row as it is now; a task that was given up is taken up again, as somebody asks for it."""
        with suppress(StorageUnavailable):
            task = await self._journal.find(task.submission_id, task.owner) or task
            if task.given_up_at is not None:
                task = await self._journal.update(task.submission_id, resume)
                self._wake.set()
        return task

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
        if following := self._following.get(sid):
            following.nudged = following.nudged or now
            following.wake.set()
        else:
            self._wake.set()

    def _is_refused(self, sid: str) -> bool:
        following = self._following.get(sid)
        return bool(following and following.trouble and following.trouble.code == Unauthorized.code)

    def _forget(self, sid: str) -> None:
        if not self._waiters[sid]:
            del self._waiters[sid]
            if sid not in self._following:
                self._known.pop(sid, None)
                self._pulses.pop(sid, None)
                del self._looks[sid]

    async def _survive(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except StorageUnavailable as failure:
            log.warning("journal_unavailable", reason=failure.message)
        except Exception:
            log.exception("sweep_failed")

    async def _recall(self) -> None:
        """Learn from what earlier processes saw."""
        for kind in Kind:
            self._pace.learn_from(await self._journal.finished(kind, MEMORY))

    async def _sweep(self) -> None:
        followed = set(self._following)  # who of these is gone further down has ended: `held` may be older than that
        for task in await self._journal.changes():
            self.publish(task)
        held = {task.submission_id: task for task in await self._journal.tend(self._now())}
        for task in [task for sid, task in held.items() if sid not in followed and sid not in self._following]:
            await asyncio.sleep(0)  # a thousand of them hold nobody up
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
            while (task.is_watched or following.unrecorded) and await self._due(task, following):
                async with self._turns.one():
                    following.nudged = False
                    look = await self._proxy.look(task.task_id or "")
                following.looked_at = asyncio.get_running_loop().time()
                self._looks[sid] += 1
                before = self._known.get(sid, task)
                task = await self._note(before, look, following)
                if not task.is_open and not following.unrecorded:
                    self._on_end(task)
                self.publish(task, news=task is not before)
        except Exception:
            log.exception("watcher_failed", task_id=task.task_id)
            await asyncio.sleep(MIN_GAP)
        finally:
            self._pace.is_over(task)
            del self._following[sid]
            self._forget(sid)

    async def _due(self, task: Task, following: _Following) -> bool:
        """Sleep until the next look is due; a waiter or a wish moves it nearer. False: not ours to watch any more."""
        clock = asyncio.get_running_loop().time
        while not following.lost:
            following.attended = self._waiters[task.submission_id] > 0
            idle = self._now() - task.updated_at
            if task.status is Status.STALLED and idle > GIVE_UP_SECONDS and not following.attended:
                await self._journal.update(task.submission_id, lambda task: give_up(task, self._now()))
                return False
            gap = self._pace.seconds_to_look(task, following, self._age(task), clock())
            if following.nudged:
                gap = min(gap, NUDGE_GAP_SECONDS)
            left = following.looked_at + gap - clock()
            if left <= 0:
                return True
            following.wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, REPLAN_SECONDS)):
                    await following.wake.wait()
        return False

    async def _note(self, task: Task, look: Look, following: _Following) -> Task:
        """What is known after this look, written down when it is news."""
        following.trouble = None
        blind = self._age(task) - following.watched.last
        match look:
            case Sighting():
                following.unknown = 0
                following.saw(self._age(task), look)
                change = self._merging(task, look, following.watched.looks, blind)
            case Unknown():
                following.unknown += 1
                following.missed(None)
                if following.unknown < UNKNOWN_LOOKS_TOLERATED or task.status is Status.STALLED:
                    return task
                change = partial(stall_if_running, warning=FORGOTTEN, now=self._now())
            case Trouble():
                following.missed(look.retry_after)
                following.trouble = look
                return task
        changed = change(task)
        if changed.is_watched:
            self._pace.is_open(changed, following.watched.last)
        if changed == task and not following.unrecorded:
            return task
        try:
            written = await self._journal.update(task.submission_id, change)
        except StorageUnavailable as failure:
            # Whoever waits is told all the same; the row is written by a later look.
            log.warning("look_not_recorded", task_id=task.task_id, reason=failure.message)
            following.failures += 1
            following.unrecorded = True
            return changed
        following.unrecorded = False
        self._pace.learn_from([written])
        return written

    def _merging(self, task: Task, sighting: Sighting, looks: int, blind: float) -> Callable[[Task], Task]:
        """The change that a look brings. It runs in the journal's thread, so what it needs is asked for here."""
        now, age = self._now(), self._age(task)
        patience = self._pace.patience(task, age, asyncio.get_running_loop().time())

        def change(task: Task) -> Task:
            merged = stall_when_idle(merge(task, sighting, now), patience, now)
            if merged.finished_at is not None and task.finished_at is None:
                return replace(merged, looks=looks, blind=round(blind, 3))
            return merged

        return change

    def _age(self, task: Task) -> float:
        """Seconds since the submit (for an adopted task: since it was first seen)."""
        return max(0.0, self._now() - (task.submitted_at or task.updated_at))
