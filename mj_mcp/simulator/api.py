"""The simulated proxy: its tasks, how they progress, and the answers to submits and fetches.

Owns jobs and their clock, the codes of an answer, and the shape of a fetch. Knows nothing of HTTP or of faults, nor
how a picture is drawn or served.
"""

import math
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from mj_mcp.simulator.drawing import Drawing, size_for
from mj_mcp.simulator.orders import INVALID, UNKNOWN_PARENT, Action, Order, Refusal

QUEUED: Final = "TASK_STATUS_QUEUED"
PROCESSING: Final = "TASK_STATUS_PROCESSING"
SUCCEED: Final = "TASK_STATUS_SUCCEED"
FAILED: Final = "TASK_STATUS_FAILED"

FAILING_WORDS: Final = "fail please"
FAILING_REASON: Final = "the job failed, as its prompt asked"
MEDIAN_SECONDS: Final = 30.0
SIGMA: Final = 0.35
_QUEUED_SHARE: Final = 0.1

_TYPES: Final[dict[Action, str]] = {
    "IMAGINE": "MIDJOURNEY_TEXT_TO_IMAGE_FAST_MODE",
    "UPSCALE": "MIDJOURNEY_UPSCALE_FAST_MODE",
    "VARIATION": "MIDJOURNEY_VARIATION_FAST_MODE",
    "REROLL": "MIDJOURNEY_REROLL_FAST_MODE",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a job at one moment; `eta` is in seconds."""

    status: str
    progress: int = 0
    eta: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One paid job. `seconds` is None for a job that a test moves; `pinned` is the state that a test set.

    `created_at` is epoch seconds; `picture` is the kind that replaces all its pictures.
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

    @property
    def ends_at(self) -> float | None:
        """When it finishes by itself, in epoch seconds."""
        return None if self.seconds is None else self.created_at + self.seconds

    def at(self, now: float) -> Standing:
        """Return its state at this moment."""
        if self.pinned is not None:
            return self.pinned
        if self.seconds is None:
            return Standing(QUEUED)
        passed = now - self.created_at
        if passed >= self.seconds:
            failing = FAILING_WORDS in self.prompt.lower()
            return Standing(FAILED, 0, 0, FAILING_REASON) if failing else Standing(SUCCEED, 100)
        eta = math.ceil(self.seconds - passed)
        queued = self.seconds * _QUEUED_SHARE
        if passed < queued:
            return Standing(QUEUED, 0, eta)
        return Standing(PROCESSING, min(99, int(100 * (passed - queued) / (self.seconds - queued))), eta)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of jobs. `job_seconds`: a number, drawn by chance, or None for "when a test says so"."""

    seed: int
    speed: float
    job_seconds: float | Literal["log-normal"] | None
    images_per_grid: int
    image_edge: int
    report_progress: bool
    deterministic_ids: bool
    repeat_upscale: Literal["charge", "existing"]


class Proxy:
    """Every job, by task id."""

    def __init__(self, rules: Rules, now: Callable[[], float]) -> None:
        self.jobs: dict[str, Job] = {}
        self.picture: str | None = None
        self._rules = rules
        self._now = now
        self._made = 0
        self._ids = random.Random(rules.seed) if rules.deterministic_ids else secrets.SystemRandom()  # noqa: S311  # no secret

    def create(self, order: Order) -> Job | Refusal:
        """Check an order against the existing jobs, and create its job."""
        parent = self._parent(order)
        if isinstance(parent, Refusal):
            return parent
        number, self._made = self._made, self._made + 1
        job = Job(
            task_id=self._new_id(),
            action=order.action,
            prompt=parent.prompt if parent else order.prompt,
            parent_id=order.parent_id,
            index=order.index,
            created_at=self._now(),
            seconds=self._seconds(number),
            shape=_shape(parent, order.index)
            if parent and order.action == "UPSCALE"
            else f"{self._rules.seed}/{number}",
            images=1 if order.action == "UPSCALE" else self._rules.images_per_grid,
            picture=self.picture,
        )
        self.jobs[job.task_id] = job
        return job

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
        self.jobs[task_id] = replace(job, pinned=standing or self._shown(job), images=count)

    def drawing(self, job: Job, index: int) -> Drawing:
        """Return what the picture of this index shows."""
        edge = self._rules.image_edge * (2 if job.action == "UPSCALE" else 1)
        number = job.index if job.action == "UPSCALE" else index
        caption = f"{job.action.lower()} {number}"
        return Drawing(job.prompt, caption, job.prompt, _shape(job, index), size_for(job.prompt, edge))

    def answer(self, job: Job, link: Callable[[Job, int], str], ttl: str) -> dict[str, Any]:
        """Return the answer to a fetch, in exactly the shape of the specification."""
        standing = self._shown(job)
        count = job.images if standing.status == SUCCEED else 0
        return {
            "extra": {"has_nsfw_contents": []},
            "task": {
                "task_id": job.task_id,
                "task_type": _TYPES[job.action],
                "status": standing.status,
                "reason": standing.reason,
                "eta": standing.eta,
                "progress_percent": standing.progress,
            },
            "images": [
                {
                    "image_url": link(job, index),
                    "image_url_ttl": ttl,
                    "image_type": "png",
                    "nsfw_detection_result": None,
                }
                for index in range(1, count + 1)
            ],
            "videos": [],
            "audios": [],
        }

    def _shown(self, job: Job) -> Standing:
        """Return the reported state of a job: without progress if the rules say so, unless a test set it."""
        standing = job.at(self._now())
        if self._rules.report_progress or job.pinned is not None:
            return standing
        return replace(standing, progress=0, eta=0)

    def _parent(self, order: Order) -> Job | Refusal | None:
        if order.parent_id is None:
            return None
        parent = self.jobs.get(order.parent_id)
        if parent is None:
            return Refusal(UNKNOWN_PARENT, "the parent task does not exist")
        if parent.at(self._now()).status != SUCCEED:
            return Refusal(INVALID, "the parent task has not succeeded")
        if order.action == "UPSCALE" and parent.action == "UPSCALE":
            return Refusal(INVALID, "an upscaled picture cannot be upscaled")
        if order.index is not None and order.index > parent.images:
            return Refusal(INVALID, f"the parent task has {parent.images} pictures")
        return parent

    def _seconds(self, number: int) -> float | None:
        wanted = self._rules.job_seconds
        if wanted is None:
            return None
        if wanted == "log-normal":
            dice = random.Random(f"{self._rules.seed}/{number}")  # noqa: S311  # repeatable, no secret
            wanted = dice.lognormvariate(math.log(MEDIAN_SECONDS), SIGMA)
        return wanted / self._rules.speed

    def _new_id(self) -> str:
        while (task_id := str(self._ids.randrange(10**15, 10**16))) in self.jobs:
            pass
        return task_id


def _shape(job: Job, index: int | None) -> str:
    return job.shape if job.action == "UPSCALE" else f"{job.shape}/{index}"
