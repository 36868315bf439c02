"""The simulated proxy: its tasks, how they progress, and what their pictures show.

Owns jobs and their clock. Knows nothing of dialects, HTTP or faults, nor how a picture is drawn or served.
"""

import math
import random
import secrets
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from mj_mcp.simulator.drawing import Drawing, size_for
from mj_mcp.simulator.orders import SINGLE, UPSCALES, Action, Order

QUEUED: Final = "TASK_STATUS_QUEUED"
PROCESSING: Final = "TASK_STATUS_PROCESSING"
SUCCEED: Final = "TASK_STATUS_SUCCEED"
FAILED: Final = "TASK_STATUS_FAILED"
WAITING: Final = "MODAL"

FAILING_WORDS: Final = "fail please"
FAILING_REASON: Final = "the job failed, as its prompt asked"
MEDIAN_SECONDS: Final = 30.0
SIGMA: Final = 0.35
QUEUED_SHARE: Final = 0.1

_TILES: Final = 4


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a job at one moment; `eta` is in seconds."""

    status: str
    progress: int = 0
    eta: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `seconds` is None for a job that a test moves; `pinned` is the state that was set at `pinned_at`.

    Times are epoch seconds; `picture` is the kind that replaces all its pictures; `waits`: for its window, unpaid.
    """

    task_id: str
    action: Action
    prompt: str
    parent_id: str | None
    index: int | None
    created_at: float
    seconds: float | None
    shape: str
    images: int
    picture: str | None = None
    pinned: Standing | None = None
    pinned_at: float | None = None
    state: str | None = None
    button: str = ""
    description: str = ""
    waits: bool = False
    fails: str = ""

    @property
    def ends_at(self) -> float | None:
        """When it finishes by itself, in epoch seconds."""
        return None if self.seconds is None else self.created_at + self.seconds

    def at(self, now: float) -> Standing:
        """Return its state at this moment."""
        if self.pinned is not None:
            return self.pinned
        if self.waits:
            return Standing(WAITING)
        if self.seconds is None:
            return Standing(QUEUED)
        passed = now - self.created_at
        if passed >= self.seconds:
            return Standing(FAILED, 0, 0, self.fails) if self.fails else Standing(SUCCEED, 100)
        eta = math.ceil(self.seconds - passed)
        queued = self.seconds * QUEUED_SHARE
        if passed < queued:
            return Standing(QUEUED, 0, eta)
        return Standing(PROCESSING, min(99, int(100 * (passed - queued) / (self.seconds - queued))), eta)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of jobs. `job_seconds`: a number, drawn by chance, or None for "when a test says so".

    `tiled`: the pictures of a grid come as one picture, and so each is given a colour of its own. `report_progress`:
    None for what the dialect does.
    """

    seed: int
    speed: float
    job_seconds: float | Literal["log-normal"] | None
    images_per_grid: int
    image_edge: int
    report_progress: bool | None
    deterministic_ids: bool
    repeat_upscale: Literal["charge", "existing"]
    tiled: bool


class SimulatedProxy:
    """Every job, by task id.

    `messages` counts how often the chat message of a task, and with it the ids of its buttons, was replaced.
    `uuids`: new jobs get a UUID for their id, else 16 digits.
    """

    def __init__(self, rules: Rules, now: Callable[[], float]) -> None:
        self.jobs: dict[str, Job] = {}
        self.messages: Counter[str] = Counter()
        self.picture: str | None = None
        self.uuids = False
        self._rules = rules
        self._now = now
        self._made = 0
        self._ids = random.Random(rules.seed) if rules.deterministic_ids else secrets.SystemRandom()  # noqa: S311  # no secret

    def create(self, order: Order, parent: Job | None = None) -> Job:
        """Create the job of a checked order; one that waits for its window is not paid for yet."""
        number, self._made = self._made, self._made + 1
        prompt = parent.prompt if parent else order.prompt
        failing = FAILING_REASON if FAILING_WORDS in prompt.lower() else ""
        inherits = parent is not None and order.action in UPSCALES
        job = Job(
            task_id=self._new_id(),
            action=order.action,
            prompt=prompt,
            parent_id=order.parent_id,
            index=order.index,
            created_at=self._now(),
            seconds=self._seconds(number),
            shape=shape_of(parent, order.index) if parent and inherits else f"{self._rules.seed}/{number}",
            images=self._images(order.action),
            picture=self.picture,
            state=order.state,
            button=order.button,
            description=order.description,
            waits=order.waits,
            fails=order.fails or failing,
        )
        self.jobs[job.task_id] = job
        return job

    def confirm(self, job: Job, prompt: str) -> Job:
        """Start a job that waited for its window, with the prompt given there."""
        self.jobs[job.task_id] = started = replace(job, waits=False, prompt=prompt, created_at=self._now())
        return started

    def existing(self, order: Order) -> Job | None:
        """Return the job that already did this upscale, if the rules say that it is not done twice."""
        if order.action != "UPSCALE" or self._rules.repeat_upscale == "charge":
            return None
        wanted = ("UPSCALE", order.parent_id, order.index)
        return next((job for job in self.jobs.values() if (job.action, job.parent_id, job.index) == wanted), None)

    def pin(self, task_id: str, standing: Standing | None = None, *, images: int | None = None) -> None:
        """Set a job's state, or freeze the current one. Raises KeyError for an unknown id."""
        job = self.jobs[task_id]
        count = job.images if images is None else images
        pinned = standing or self.shown(job)
        self.jobs[task_id] = replace(job, pinned=pinned, pinned_at=self._now(), images=count)
        self.messages[task_id] += 1

    def drawing(self, job: Job, index: int) -> Drawing:
        """Return what the picture of this index shows; index 0 is the whole grid."""
        if index == 0:
            tiles = tuple(self.drawing(job, number) for number in range(1, job.images + 1))
            width, height = tiles[0].size
            return replace(tiles[0], size=(2 * width, 2 * height), tiles=tiles)
        upscaled = job.action in UPSCALES
        edge = self._rules.image_edge * (2 if upscaled else 1)
        number = job.index if upscaled else index
        turn = ((number or 1) - 1) / _TILES if self._rules.tiled else 0.0
        caption = f"{job.action.lower()} {number}"
        return Drawing(job.prompt, caption, job.prompt, shape_of(job, index), size_for(job.prompt, edge), turn)

    def shown(self, job: Job) -> Standing:
        """Return the reported state of a job: without progress if the rules say so, unless a test set it."""
        standing = job.at(self._now())
        asked = self._rules.report_progress
        if (self._rules.tiled if asked is None else asked) or job.pinned is not None:
            return standing
        return replace(standing, progress=0, eta=0)

    def _images(self, action: Action) -> int:
        if action == "SHORTEN":
            return 0
        return 1 if action in SINGLE else self._rules.images_per_grid

    def _seconds(self, number: int) -> float | None:
        wanted = self._rules.job_seconds
        if wanted is None:
            return None
        if wanted == "log-normal":
            dice = random.Random(f"{self._rules.seed}/{number}")  # noqa: S311  # repeatable, no secret
            wanted = dice.lognormvariate(math.log(MEDIAN_SECONDS), SIGMA)
        return wanted / self._rules.speed

    def _new_id(self) -> str:
        if self.uuids:
            return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))
        while (task_id := str(self._ids.randrange(10**15, 10**16))) in self.jobs:
            pass
        return task_id


def shape_of(job: Job, index: int | None) -> str:
    """Return the seed of the hills in one picture of a job; an upscale shows its parent's."""
    return job.shape if job.action in UPSCALES else f"{job.shape}/{index}"
