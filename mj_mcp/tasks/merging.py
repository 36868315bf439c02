"""How an observation is merged into what is known of a task.

Owns the rule that what was known is never lost. Pure: from one frozen `Task` to the next.
"""

from __future__ import annotations

from dataclasses import replace

from mj_mcp.tasks import MOVES, OF_A_POLL, Failure, Observation, Status, Task, joined, move, without

UNLISTED_SECONDS = 20.0
"""How long a success may take to list its pictures before it counts as one without pictures."""


def merge(task: Task, observed: Observation, now: float) -> Task:
    """`task` merged with one observation. What was known is never lost.

    A status that goes backwards, a smaller progress and an observation after the end change nothing. `updated_at`
    changes only when something else does.
    """
    if task.status is Status.SUCCEEDED and observed.status is Status.SUCCEEDED and observed.images:
        return _relinked(task, observed, now)
    if not task.is_polled or _is_late(task, observed):
        return task
    if _is_unlisted(task, observed, now):
        observed = replace(observed, status=Status.PROCESSING, warnings=())
    known = replace(
        _with_buttons(task, observed),
        upstream_status=observed.upstream_status or task.upstream_status,
        progress=max((p for p in (task.progress, observed.progress) if p is not None), default=None),
        upstream_eta=observed.eta_seconds,
        kind=task.kind or observed.kind,
        prompt=(observed.prompt or task.prompt) if task.kind is None else (task.prompt or observed.prompt),
        parent_id=task.parent_id or observed.parent_id,
        warnings=joined(without(OF_A_POLL, task.warnings), observed.warnings),
    )
    # A stalled task that reports the state it stalled in has not moved.
    moved_on = observed.status in MOVES[task.status] and (
        task.status is not Status.STALLED or _advanced(task, observed)
    )
    if moved_on:
        known = move(known, observed.status, now)
    if known.status is Status.SUCCEEDED:
        known = replace(known, images=observed.images, failure=None, progress=100, upstream_eta=None)
    elif known.status is Status.FAILED:
        known = replace(known, failure=observed.failure or Failure("generation_failed", ""), upstream_eta=None)
    changed = moved_on or known.progress != task.progress or known.upstream_status != task.upstream_status
    return replace(known, updated_at=now) if changed else known


def _with_buttons(task: Task, observed: Observation) -> Task:
    """`task` with the buttons of an observation that shows any."""
    if observed.offers is None:
        return task
    return replace(task, buttons=observed.buttons, offers=observed.offers)


def _is_late(task: Task, observed: Observation) -> bool:
    return observed.status is Status.QUEUED and task.status in {Status.PROCESSING, Status.STALLED}


def _is_unlisted(task: Task, observed: Observation, now: float) -> bool:
    """Whether it is a success that may still list its pictures. The row is unchanged since the first such poll."""
    is_first = observed.upstream_status != task.upstream_status
    return (
        observed.status is Status.SUCCEEDED
        and not observed.images
        and (is_first or now - task.updated_at < UNLISTED_SECONDS)
    )


def _advanced(task: Task, observed: Observation) -> bool:
    if observed.status in {Status.SUCCEEDED, Status.FAILED}:
        return True
    return (observed.progress or 0) > (task.progress or 0) or observed.upstream_status != task.upstream_status


def _relinked(task: Task, observed: Observation, now: float) -> Task:
    """A finished task polled again: the links are new, and what was measured and saved stays."""
    ours = {image.index: image for image in task.images}
    fresh = tuple(ours[image.index].relinked(image) if image.index in ours else image for image in observed.images)
    kept = tuple(image for index, image in ours.items() if index not in {image.index for image in observed.images})
    images = tuple(sorted(fresh + kept, key=lambda image: image.index))
    known = replace(_with_buttons(task, observed), images=images)
    if known == task:
        return task
    return replace(known, warnings=joined(without(OF_A_POLL, task.warnings), observed.warnings), updated_at=now)
