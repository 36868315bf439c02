"""The metrics: one table of instruments, and what each event adds to them.

Owns names, units and attributes; docs/deploy.md explains them. Attributes are few and short: no ids, no prompts, no
links. Does not know where the numbers go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from mj_mcp.events import Called, Ended, Event, Load, Opened, Submitted
from mj_mcp.tasks import Status, Task

JOB_BUCKETS = (5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1800.0)
DELAY_BUCKETS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 300.0, 600.0)

_OUTCOMES = {Status.REFUSED: "refused", Status.UNCONFIRMED: "unconfirmed"}
"""The outcome by status. Any other status means that the submit was accepted."""


class Meters:
    """The instruments of one process."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._submits = meter.create_counter(
            "mj_mcp.submits", "{submit}", "Submits that were sent, by outcome: accepted, refused, unconfirmed."
        )
        self._spend = meter.create_counter(
            "mj_mcp.spend", "{submit}", "Submits that the proxy accepted and so charged, by the identity that pays."
        )
        self._jobs = meter.create_histogram(
            "mj_mcp.job.duration",
            "s",
            "Time from the claim to the poll that observed the end.",
            explicit_bucket_boundaries_advisory=JOB_BUCKETS,
        )
        self._delays = meter.create_histogram(
            "mj_mcp.notice.delay",
            "s",
            "Time since the last poll that found the job open: an upper bound of the delay of the notice.",
            explicit_bucket_boundaries_advisory=DELAY_BUCKETS,
        )
        self._calls = meter.create_histogram(
            "mj_mcp.call.duration",
            "s",
            "Duration of a tool call, including the wait.",
            explicit_bucket_boundaries_advisory=CALL_BUCKETS,
        )

    def observe(self, event: Event) -> None:
        """Count it."""
        match event:
            case Called(tool, outcome, code, seconds):
                self._calls.record(seconds, _known({"tool": tool, "outcome": outcome, "error.type": code}))
            case Submitted(task):
                self._count(task)
            case Ended(task):
                self._measure(task)
            case Opened(load):
                self._gauge(load)

    def _count(self, task: Task) -> None:
        outcome = _OUTCOMES.get(task.status, "accepted")
        code = task.failure.code if task.failure and outcome != "accepted" else None
        self._submits.add(1, _known({"kind": task.kind, "outcome": outcome, "error.type": code}))
        if outcome == "accepted":
            self._spend.add(1, {"identity": task.owner})

    def _measure(self, task: Task) -> None:
        attributes = _known({"kind": task.kind, "status": task.status})
        # An adopted task was submitted elsewhere, at an unknown time.
        if task.finished_at is not None and task.claimed_at is not None:
            self._jobs.record(task.finished_at - task.claimed_at, attributes)
        if task.unseen_seconds is not None:
            self._delays.record(task.unseen_seconds, attributes)

    def _gauge(self, load: Callable[[], Load]) -> None:
        def open_tasks(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(load().open_tasks)]

        def waiters(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(load().waiters)]

        self._meter.create_observable_gauge(
            "mj_mcp.tasks.open", [open_tasks], "{task}", "Open tasks that this process polls."
        )
        self._meter.create_observable_gauge(
            "mj_mcp.waiters", [waiters], "{call}", "Calls that wait for a task in this process."
        )


def _known(attributes: dict[str, str | None]) -> dict[str, str]:
    return {name: str(value) for name, value in attributes.items() if value is not None}
