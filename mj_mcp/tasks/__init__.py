"""The task: its states, its legal moves, and how an observation is merged into what is known.

Owns the vocabulary that every module above shares. Knows nothing of HTTP, SQL or MCP, and does no I/O:
every function here is pure, from one frozen `Task` to the next.

    submitting --> unconfirmed --> abandoned         the answer to the submit was lost
        |   `----> refused                           the proxy said no: kept for audit, not a task
        v
      queued --> processing --> succeeded | failed
        `--> stalled <--'                            open, but nothing has moved for long

Two rules: a move that `MOVES` does not list raises `IllegalMove` and changes nothing; a later observation
never takes back an earlier one (`merging.merge` is monotone).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Status(StrEnum):
    """The state of a task. The values are published in the structured content of every task tool."""

    SUBMITTING = "submitting"
    UNCONFIRMED = "unconfirmed"
    QUEUED = "queued"
    PROCESSING = "processing"
    STALLED = "stalled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"
    REFUSED = "refused"


class Kind(StrEnum):
    """What was bought."""

    IMAGINE = "imagine"
    UPSCALE = "upscale"
    VARIATION = "variation"
    REROLL = "reroll"
    BUTTON = "button"
    """Any other button of the proxy: zoom, pan, animate."""


class WarningCode(StrEnum):
    """What a caller should know about a task. It is worded where it is shown.

    A row stores the code followed by its numbers: `queued_behind:3`. Rows of older versions have sentences.
    """

    QUEUED_BEHIND = "queued_behind"
    """The number of jobs that were ahead of it when it was accepted."""
    EXISTED = "existed"
    IDLE = "idle"
    """Nothing has changed for this many minutes."""
    UNKNOWN = "unknown"
    """The proxy does not know it at the moment."""
    UNREAD = "unread"
    """The answer comes from memory, because the journal is unavailable. Never stored in a row."""
    LINKS_UNUSABLE = "links_unusable"
    """This many picture links, out of this many."""
    NO_PICTURES = "no_pictures"
    PROMPT_UNUSED = "prompt_unused"
    """The button that was pressed asked for no prompt."""

    def of(self, *numbers: int) -> str:
        """The warning as it is stored in a row."""
        return ":".join([self.value, *map(str, numbers)])


_PASSING = frozenset({WarningCode.QUEUED_BEHIND, WarningCode.IDLE, WarningCode.UNKNOWN})
"""Dropped when the task moves on."""

OF_A_POLL = frozenset({WarningCode.UNKNOWN, WarningCode.LINKS_UNUSABLE, WarningCode.NO_PICTURES})
"""Replaced by each new poll that finds the task."""

_S = Status
MOVES: dict[Status, frozenset[Status]] = {
    _S.SUBMITTING: frozenset({_S.QUEUED, _S.REFUSED, _S.UNCONFIRMED}),
    # A late answer, or a person with the proxy's records, settles it.
    _S.UNCONFIRMED: frozenset({_S.QUEUED, _S.REFUSED, _S.ABANDONED}),
    _S.QUEUED: frozenset({_S.PROCESSING, _S.STALLED, _S.SUCCEEDED, _S.FAILED}),
    _S.PROCESSING: frozenset({_S.STALLED, _S.SUCCEEDED, _S.FAILED}),
    _S.STALLED: frozenset({_S.PROCESSING, _S.SUCCEEDED, _S.FAILED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    # A person abandoned it, then found the task after all.
    _S.ABANDONED: frozenset({_S.QUEUED}),
    _S.REFUSED: frozenset(),
}

OPEN = frozenset({_S.SUBMITTING, _S.UNCONFIRMED, _S.QUEUED, _S.PROCESSING, _S.STALLED})
"""Not settled: the row holds the claim on its request, so an identical request finds it."""

POLLED = frozenset({_S.QUEUED, _S.PROCESSING, _S.STALLED})
"""Tasks that are polled."""

RUNNING = frozenset({_S.SUBMITTING, _S.QUEUED, _S.PROCESSING})
"""Tasks that count against the limit of open tasks."""

TASKS = frozenset(Status) - {_S.REFUSED}
"""Tasks that a list shows. Refused submits are kept for audit only."""


LOCAL_OWNER = "local"
"""The person at this machine: the caller where no login is needed."""


class IllegalMove(Exception):
    """A move that `MOVES` does not list. It is a bug in this program, never the caller's mistake."""


@dataclass(frozen=True, slots=True)
class Image:
    """One picture of a task. `index` counts from 1; `path` is the archived original on this machine.

    `url` may name one part of a 2x2 grid (`urls.with_part`). `size` (in bytes) and `sha256` describe the original as it
    was archived: a kept file is checked against them.
    """

    index: int
    url: str
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None
    fallback_url: str | None = None
    """Where the picture is fetched from if `url` fails: a part of the grid. Not shown in results."""

    @property
    def is_video(self) -> bool:
        """Whether it is a video, which is never fetched: its link is all there is."""
        return (self.media_type or "").startswith("video/")

    def relinked(self, fresh: Image) -> Image:
        """This picture, with the links of `fresh`."""
        return replace(self, url=fresh.url, fallback_url=fresh.fallback_url)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed or a submit was refused: our code, and the proxy's words, cleaned."""

    code: str
    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One request and what became of it. Times are seconds since the epoch, UTC."""

    submission_id: str
    status: Status
    updated_at: float
    owner: str = LOCAL_OWNER
    task_id: str | None = None
    kind: Kind | None = None
    prompt: str | None = None
    parent_id: str | None = None
    index: int | None = None
    button: str | None = None
    """The label of the button that was pressed."""
    buttons: tuple[str, ...] = ()
    """The labels of the buttons that the proxy offers for it, without those of the other kinds."""
    offers: tuple[Kind, ...] | None = None
    """Which upscales, variations and rerolls these buttons offer; None where the proxy shows no buttons."""
    upstream_status: str | None = None
    progress: int | None = None
    upstream_eta: float | None = None
    images: tuple[Image, ...] = ()
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    submitted_at: float | None = None
    claimed_at: float | None = None
    """When the claim was made, after our own queue. The job's time counts from here. None in rows of older versions."""
    finished_at: float | None = None
    polls: int | None = None
    """Polls that its poller made until the end was observed."""
    given_up_at: float | None = None
    """When automatic polling of a stalled task stopped."""
    unseen_seconds: float | None = None
    """Seconds between the last poll that found it open and the poll that found it ended; None where unknown."""

    @property
    def is_open(self) -> bool:
        """Whether its status can still change without a new submit."""
        return self.status in OPEN

    @property
    def is_polled(self) -> bool:
        """Whether it is polled."""
        return self.status in POLLED

    @property
    def is_moving(self) -> bool:
        """Whether waiting can help: its submit is under way, or the proxy works on it."""
        return self.is_polled or self.status is Status.SUBMITTING

    @property
    def handle(self) -> str:
        """The id to use in the next call."""
        return self.task_id or self.submission_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one poll showed, in our terms. `status` is one of the four that a proxy can report.

    `kind`, `prompt` and `parent_id` are for a task that was bought elsewhere.
    """

    status: Status
    kind: Kind | None = None
    prompt: str | None = None
    parent_id: str | None = None
    upstream_status: str | None = None
    progress: int | None = None
    eta_seconds: float | None = None
    failure: Failure | None = None
    images: tuple[Image, ...] = ()
    buttons: tuple[str, ...] = ()
    offers: tuple[Kind, ...] | None = None
    warnings: tuple[str, ...] = ()


def move(task: Task, status: Status, now: float) -> Task:
    """`task` in its next state, without the warnings that belonged to the last one.

    Raises:
        IllegalMove: `MOVES` does not list it.
    """
    if status not in MOVES[task.status]:
        raise IllegalMove(f"{task.submission_id}: {task.status} -> {status}")
    finished = now if status in {_S.SUCCEEDED, _S.FAILED} else None
    warnings = without(_PASSING, task.warnings)
    return replace(task, status=status, updated_at=now, finished_at=finished, given_up_at=None, warnings=warnings)


def accept(task: Task, task_id: str, now: float, warnings: tuple[str, ...] = ()) -> Task:
    """The proxy accepted the submit and named its task."""
    accepted = move(task, _S.QUEUED, now)
    return replace(accepted, task_id=task_id, failure=None, warnings=joined(accepted.warnings, warnings))


def refuse(task: Task, failure: Failure, now: float) -> Task:
    """The proxy refused the submit in a readable way: nothing was charged."""
    return replace(move(task, _S.REFUSED, now), failure=failure)


def mark_unconfirmed(task: Task, message: str, now: float) -> Task:
    """The outcome is unknown: the submit may have been charged."""
    return replace(move(task, _S.UNCONFIRMED, now), failure=Failure("unconfirmed", message))


def stall(task: Task, warning: str, now: float) -> Task:
    """Nothing changes any more; `warning` says for how long, or why."""
    return warn(move(task, _S.STALLED, now), warning)


def stall_if_running(task: Task, warning: str, now: float) -> Task:
    """Like `stall` for a running task. Any other task is returned unchanged."""
    return stall(task, warning, now) if task.status in {_S.QUEUED, _S.PROCESSING} else task


def stall_when_idle(task: Task, patience: float, now: float) -> Task:
    """`task`, stalled if nothing about it has changed for more than `patience` seconds."""
    idle = now - task.updated_at
    return stall_if_running(task, WarningCode.IDLE.of(round(idle / 60)), now) if idle > patience else task


def warn(task: Task, warning: str) -> Task:
    """`task` with one more warning. Its state does not change."""
    return replace(task, warnings=joined(task.warnings, (warning,)))


def give_up(task: Task, now: float) -> Task:
    """A stalled task that is not polled automatically any more. A task that moved meanwhile is unchanged."""
    if task.status is not _S.STALLED or task.given_up_at is not None:
        return task
    return replace(task, given_up_at=now)


def resume(task: Task) -> Task:
    """A task whose polling was given up, polled again because a caller asks for it."""
    return replace(task, given_up_at=None)


def without(codes: frozenset[WarningCode], warnings: tuple[str, ...]) -> tuple[str, ...]:
    """The warnings that have none of these codes."""
    return tuple(warning for warning in warnings if warning.partition(":")[0] not in codes)


def joined(known: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """Both, each warning once."""
    return known + tuple(warning for warning in more if warning not in known)
