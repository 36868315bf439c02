"""The simulator as one object with a lifetime, and everything that a test may ask of it.

Owns the order in which a request is recorded, spoiled and answered. Knows nothing of the program under test: a fake
that shared its parser would share its mistakes.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, Self, Unpack
from urllib.parse import unquote

from mj_mcp.simulator.api import FAILED, PROCESSING, QUEUED, SUCCEED, Job, Rules, SimulatedProxy, Standing
from mj_mcp.simulator.dialects.desk import Desk, Habits, SiteSettings, Unknown
from mj_mcp.simulator.fault import Fault, Script
from mj_mcp.simulator.hostile import KINDS
from mj_mcp.simulator.jobs import Charge, Ledger, ReceivedRequest, repeated
from mj_mcp.simulator.listener import Listener, Reply, Request
from mj_mcp.simulator.site import DialectName, Site, Visit

_LONGEST: Final = 1024 * 1024
_LONGEST_WITH_PICTURES: Final = 30_000_000
_SPEED: Final = r"(?:/mj-\w+)?"
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # to name, not to bind


class Simulator:
    """A Midjourney Proxy on loopback. Open it with `async with`; every setting is a keyword.

    Args:
        dialect: Which proxy it is; `Habits` has the keywords for what differs between two of one dialect.
        key: The only API key that is accepted.
        host: Where to listen; `port` 0 picks a free one; `prefix` is a path before the API's own.
        port: See `host`.
        prefix: See `host`.
        seed: Decides job times and shapes (and ids, with `deterministic_ids`).
        speed: Divides every job time.
        job_seconds: How long a job takes; "log-normal" around 30 s; None for "until a test moves it".
        report_progress: Whether progress and eta are reported, or stay 0; by default only the gateway's stay 0.
        images_per_grid: 1 to 4; an upscale has one picture.
        image_edge: The longer edge of one picture in pixels; an upscale, and a grid in one picture, have twice that.
        link_seconds: How long a picture's link works; None: for ever.
        ledger_path: Where charges are also appended as JSON lines.
        deterministic_ids: Whether ids repeat from run to run.
        repeat_upscale: Whether the same upscale is charged again, or answered by code 21 with the existing task.
        unknown_answer: How the gateway answers a fetch of an unknown task.
        on_charge: Called with every charge before its submit is answered; an error in it is raised on leaving.
        now: The clock, in epoch seconds.

    Attributes:
        requests: Every request in order.
        fired: How often each fault happened, by name.
    """

    def __init__(
        self,
        *,
        dialect: DialectName = "gateway",
        key: str = "test-key",
        host: str = "127.0.0.1",
        port: int = 0,
        prefix: str = "",
        seed: int = 0,
        speed: float = 1.0,
        job_seconds: float | Literal["log-normal"] | None = "log-normal",
        report_progress: bool | None = None,
        images_per_grid: int = 4,
        image_edge: int = 1024,
        link_seconds: float | None = None,
        ledger_path: Path | None = None,
        deterministic_ids: bool = False,
        repeat_upscale: Literal["charge", "existing"] = "charge",
        unknown_answer: Unknown = "empty",
        on_charge: Callable[[Charge], None] | None = None,
        now: Callable[[], float] = time.time,
        **habits: Unpack[Habits],
    ) -> None:
        tiled = dialect != "gateway"
        times = (seed, speed, job_seconds)
        rules = Rules(*times, images_per_grid, image_edge, report_progress, deterministic_ids, repeat_upscale, tiled)
        self.requests: list[ReceivedRequest] = []
        self.fired: Counter[str] = Counter()
        self._host = host
        self._prefix = prefix.rstrip("/")
        self._on_charge = on_charge
        self._now = now
        self._proxy = SimulatedProxy(rules, now)
        self._ledger = Ledger(ledger_path)
        settings = SiteSettings(key, self._prefix, image_edge, link_seconds, habits)
        self._desk = Desk(settings, self._proxy, self._write_down, self._fire, now, unknown_answer)
        self._site = Site(self._desk, dialect)
        self._script = Script()
        self._listener = Listener(self._answer, host, port, _LONGEST_WITH_PICTURES if tiled else _LONGEST)
        self._changed, self._closed = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        self._ledger.open()
        try:
            await self._listener.open()
        except BaseException:
            self._ledger.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._listener.close()
        finally:
            await self._site.pictures.close()
            self._ledger.close()
            self._closed.set()

    # --- its address

    @property
    def port(self) -> int:
        """The port it listens on, or will listen on again."""
        return self._listener.port

    @property
    def url(self) -> str:
        """The base URL with the prefix, without a trailing slash."""
        host = _ANYWHERE.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{self._prefix}"

    async def wait_closed(self) -> None:
        """Wait until the context is left."""
        await self._closed.wait()

    async def stop_listening(self, *, abort: bool = False) -> None:
        """Refuse connections. Idle ones are closed; busy ones are answered first, or reset when `abort`."""
        await self._listener.stop(abort=abort)

    async def start_listening(self) -> None:
        """Listen again on the same port."""
        await self._listener.start()

    # --- what it received

    @property
    def unknown_answer(self) -> Unknown:
        """How the gateway answers a fetch of an unknown task; can be set."""
        return self._desk.unknown_answer

    @unknown_answer.setter
    def unknown_answer(self, answer: Unknown) -> None:
        self._desk.unknown_answer = answer

    @property
    def guests(self) -> int:
        """How many requests a plus let in as a guest's, for they had no key or a wrong one."""
        return self._desk.guests

    @property
    def jobs(self) -> dict[str, Job]:
        """A copy of the jobs by task id."""
        return dict(self._proxy.jobs)

    @property
    def ledger(self) -> list[Charge]:
        """Every charge in order, made when its job was created, whatever happened to the answer."""
        return self._ledger.charges

    def duplicates(self) -> list[Charge]:
        """Return the charges that bought what was bought before; a mark of the client's makes no difference."""
        return repeated(self.ledger)

    def submits(self) -> list[ReceivedRequest]:
        """Return the submits among the requests, charged or not."""
        submit = re.compile(rf"{re.escape(self._prefix)}(?:{_SPEED}/mj/submit/.*|/v1/[a-z-]+)")
        return [received for received in self.requests if submit.fullmatch(received.path)]

    def polls(self, task_id: str | None = None) -> list[ReceivedRequest]:
        """Return the fetches among the requests, of all tasks or of one."""
        of_one = rf"{re.escape(self._prefix)}(?:{_SPEED}/mj/task/([^/]+)/fetch|/v1/job/([^/]+))"
        found = ((received, re.fullmatch(of_one, received.path)) for received in self.requests)
        return [received for received, match in found if match and task_id in (None, unquote(match[1] or match[2]))]

    async def until(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:  # noqa: ASYNC109  # reads better in a test
        """Wait until the condition holds. It is checked after every request, charge and fault.

        Raises:
            TimeoutError: It did not hold in time.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                await self._changed.wait()

    # --- what a test decides

    def inject(self, where: str, fault: Fault, times: int = 1) -> None:
        """Spoil the next requests of a kind in `fault.TARGETS`, in order; "submit" is every submit."""
        self._script.inject(where, fault, times)

    def seed_faults(self, seed: int, rate: float, where: str | Sequence[str], choices: Sequence[Fault]) -> None:
        """Spoil requests at random, the same ones for the same seed; `rate` is a share of 1."""
        self._script.seed(seed, rate, [where] if isinstance(where, str) else where, choices)

    def clear_faults(self) -> None:
        """Drop every fault that has not fired, and the random ones."""
        self._script.clear()

    def faults_left(self) -> int:
        """Count the injected faults that no request has met."""
        return self._script.left()

    def finish(self, task_id: str, *, images: int | None = None, progress: int = 0) -> None:
        """Let a job succeed now, with the usual number of pictures by default; one that waits for a window, too."""
        self._proxy.pin(task_id, Standing(SUCCEED, progress), images=images)

    def fail(self, task_id: str, reason: str = "the test said so") -> None:
        """Let a job fail now."""
        self._proxy.pin(task_id, Standing(FAILED, reason=reason))

    def process(self, task_id: str, progress: int = 0, eta: int = 0) -> None:
        """Hold a job at processing, with this progress in per cent and this many seconds left."""
        self._proxy.pin(task_id, Standing(PROCESSING, progress, eta))

    def queue(self, task_id: str) -> None:
        """Hold a job in the queue."""
        self._proxy.pin(task_id, Standing(QUEUED))

    def put(self, task_id: str, status: str, *, progress: int = 0, eta: int = 0, reason: str = "") -> None:
        """Hold a job at any status."""
        self._proxy.pin(task_id, Standing(status, progress, eta, reason))

    def renew_buttons(self, task_id: str) -> None:
        """Replace the chat message of a task: its buttons stay, their ids are others."""
        self._proxy.messages[task_id] += 1

    def forget(self, task_id: str) -> None:
        """Forget one task."""
        self._proxy.jobs.pop(task_id, None)

    def restart_forgetting(self) -> None:
        """Forget every task, like a proxy that restarts. The ledger stays."""
        self._proxy.jobs.clear()

    def picture(self, task_id: str, index: int, kind: str | None) -> None:
        """Serve a picture as a kind of the hostile table; None for the real one. Index 0 is a grid in one picture."""
        self._desk.pictures[task_id, index] = _known(kind) or "png"

    def pictures_are(self, kind: str | None) -> None:
        """Serve all pictures of tasks created from now on as this kind; None for real ones."""
        self._proxy.picture = _known(kind)

    # --- how a request is answered

    async def _answer(self, request: Request) -> Reply:
        received = ReceivedRequest(
            request.method, request.path, request.query, dict(request.headers), request.body, self._now()
        )
        self.requests.append(received)
        self._notify()
        visit = self._site.find(request)
        return visit if isinstance(visit, Reply) else await self._spoiled(visit)

    async def _spoiled(self, visit: Visit) -> Reply:
        """Answer a request as the script says: spoiled before, during or after it takes effect."""
        fault = self._script.next(visit.targets)
        if fault is None:
            return await visit.serve()
        silent = bool(fault.delay) or fault.until is not None
        fired = silent or (fault.effect is not None and self._disturb(fault, visit.names))
        if fired:
            self._fire(fault.name)
        if fault.delay_first:
            await asyncio.sleep(fault.delay)
        reply = await visit.serve() if fault.accept else Reply()
        if not fault.delay_first:
            await asyncio.sleep(fault.delay)
        if fault.until is not None:
            await fault.until.wait()
        spoiled = None if fault.effect else fault.applied(reply)
        if spoiled is None:
            return reply
        return spoiled if fired else replace(spoiled, acted=lambda: self._fire(fault.name))

    def _disturb(self, fault: Fault, names: dict[str, str]) -> bool:
        task_id = fault.task_id or names.get("task_id", "")
        if task_id not in self._proxy.jobs:
            return False
        if fault.effect == "forget":
            self.forget(task_id)
        else:
            self._proxy.pin(task_id)
        return True

    def _fire(self, name: str) -> None:
        self.fired[name] += 1
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _write_down(self, job: Job, endpoint: str, body: dict[str, Any]) -> None:
        charge = self._ledger.charge(job.task_id, endpoint, body, job.created_at)
        if self._on_charge is not None:
            self._on_charge(charge)
        self._notify()


def _known(kind: str | None) -> str | None:
    if kind is not None and kind not in KINDS:
        raise ValueError(f"no picture is of kind {kind!r}; kinds are {', '.join(sorted(KINDS))}")
    return kind
