"""The language of tasks: the table of moves, and the merge that never takes anything back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mj_mcp.tasks import (
    MOVES,
    OPEN,
    POLLED,
    RUNNING,
    TASKS,
    Failure,
    IllegalMove,
    Image,
    Kind,
    Observation,
    Status,
    Task,
    accept,
    mark_unconfirmed,
    move,
    refuse,
    stall,
    stall_when_idle,
)
from mj_mcp.tasks.merging import UNLISTED_SECONDS, merge

THEN = 1000.0
LATER = 2000.0

A = (Image(1, "https://a.example/1.png"),)

TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED})

LEGAL = {
    "submitting": "queued refused unconfirmed",
    "unconfirmed": "queued refused abandoned",
    "queued": "processing stalled succeeded failed",
    "processing": "stalled succeeded failed",
    "stalled": "processing succeeded failed",
    "succeeded": "",
    "failed": "",
    "abandoned": "queued",
    "refused": "",
}
"""The moves in words, written down a second time: a change of the table has to be meant."""

WORDS: dict[Status, list[str | None]] = {
    Status.QUEUED: ["TASK_STATUS_QUEUED"],
    Status.PROCESSING: ["TASK_STATUS_PROCESSING", "TASK_STATUS_DREAMING", None],
    Status.SUCCEEDED: ["TASK_STATUS_SUCCEED"],
    Status.FAILED: ["TASK_STATUS_FAILED", "TASK_STATUS_CANCELED"],
}


VERBS: dict[str, tuple[Status, Callable[[Task], Task]]] = {
    "accept": (Status.QUEUED, lambda task: accept(task, "77", LATER)),
    "refuse": (Status.REFUSED, lambda task: refuse(task, Failure("rejected", "no"), LATER)),
    "doubt": (Status.UNCONFIRMED, lambda task: mark_unconfirmed(task, "lost", LATER)),
    "stall": (Status.STALLED, lambda task: stall(task, "nothing moves", LATER)),
}


def task_in(status: Status) -> Task:
    return Task(submission_id="sub_1", status=status, updated_at=THEN)


def pictures(prefix: str) -> st.SearchStrategy[tuple[Image, ...]]:
    indexes = st.sets(st.integers(1, 4), max_size=4)
    links = st.sampled_from(["a", "b"])
    return st.tuples(indexes, links).map(
        lambda drawn: tuple(Image(index, f"https://{prefix}.example/{drawn[1]}/{index}") for index in sorted(drawn[0]))
    )


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """What `read_look` can give: pictures only with success, a failure only with failure."""
    status = draw(st.sampled_from(list(WORDS)))
    return Observation(
        status=status,
        upstream_status=draw(st.sampled_from(WORDS[status])),
        progress=None if status is Status.SUCCEEDED else draw(st.none() | st.integers(1, 99)),
        eta_seconds=draw(st.none() | st.sampled_from([1.0, 30.0])),
        failure=Failure("generation_failed", draw(st.sampled_from(["", "why"]))) if status is Status.FAILED else None,
        images=draw(pictures("seen")) if status is Status.SUCCEEDED else (),
        warnings=draw(st.sampled_from([(), ("w",), ("w", "x")])),
    )


def is_unlisted(seen: Observation) -> bool:
    return seen.status is Status.SUCCEEDED and not seen.images


def begun(status: Status) -> Task:
    return replace(task_in(status), task_id="77")


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Any task that polls, verbs and time can have led to."""
    task = begun(Status.QUEUED)
    for seen in draw(st.lists(observations(), max_size=3)):
        task = merge(task, seen, THEN)
    if Status.STALLED in MOVES[task.status] and draw(st.booleans()):
        task = stall(task, "nothing moves", THEN)
    settled = st.sampled_from([Status.SUBMITTING, Status.UNCONFIRMED, Status.ABANDONED, Status.REFUSED])
    return draw(st.just(task) | st.builds(task_in, settled))


# --- the table


def test_the_table_of_moves_is_the_drawing() -> None:
    assert {str(status): {str(to) for to in moves} for status, moves in MOVES.items()} == {
        status: set(moves.split()) for status, moves in LEGAL.items()
    }
    assert set(MOVES) == set(Status)


def test_the_groups_of_states_agree_with_the_table() -> None:
    ends = {status for status in Status if not MOVES[status]}
    assert ends == {Status.SUCCEEDED, Status.FAILED, Status.REFUSED}
    assert set(Status) - ends - {Status.ABANDONED} == OPEN
    assert {status for status in OPEN if MOVES[status] >= TERMINAL} == POLLED
    assert RUNNING < OPEN
    assert set(Status) - {Status.REFUSED} == TASKS


@pytest.mark.parametrize("start", Status)
@pytest.mark.parametrize("end", Status)
def test_a_move_that_the_table_does_not_list_raises_and_changes_nothing(start: Status, end: Status) -> None:
    task = task_in(start)
    if str(end) in LEGAL[start].split():
        finished = LATER if end in TERMINAL else None
        assert move(task, end, LATER) == replace(task, status=end, updated_at=LATER, finished_at=finished)
    else:
        with pytest.raises(IllegalMove, match=f"sub_1: {start} -> {end}"):
            move(task, end, LATER)
    assert task == task_in(start)


@pytest.mark.parametrize("start", Status)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_keeps_to_the_table(start: Status, verb: str) -> None:
    end, act = VERBS[verb]
    task = task_in(start)
    if str(end) in LEGAL[start].split():
        assert act(task).status is end
    else:
        with pytest.raises(IllegalMove):
            act(task)
    assert task == task_in(start)


def test_a_task_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        task_in(Status.QUEUED).status = Status.FAILED  # type: ignore[misc]


# --- the verbs


def test_an_accepted_submit_has_its_id_and_no_doubt_left() -> None:
    doubtful = replace(mark_unconfirmed(task_in(Status.SUBMITTING), "no answer in time", THEN), warnings=("a",))
    assert doubtful.failure == Failure("unconfirmed", "no answer in time")
    assert accept(doubtful, "77", LATER, ("a", "b")) == replace(
        doubtful, status=Status.QUEUED, task_id="77", updated_at=LATER, failure=None, warnings=("a", "b")
    )


def test_an_abandoned_submit_that_is_found_after_all_is_followed_again() -> None:
    assert accept(task_in(Status.ABANDONED), "77", LATER) == replace(
        task_in(Status.QUEUED), task_id="77", updated_at=LATER
    )


def test_a_refused_submit_says_why() -> None:
    failure = Failure("busy", "the queue is full", 15.0)
    assert refuse(task_in(Status.SUBMITTING), failure, LATER) == replace(
        task_in(Status.REFUSED), failure=failure, updated_at=LATER
    )


def test_a_stalled_task_says_so_once() -> None:
    stalled = stall(begun(Status.PROCESSING), "nothing moves", LATER)
    assert stalled == replace(begun(Status.STALLED), warnings=("nothing moves",), updated_at=LATER)
    assert stall(move(stalled, Status.PROCESSING, LATER), "nothing moves", LATER).warnings == ("nothing moves",)


ABOUT_THE_REQUEST = ("existed", "a sentence of an older version: it stays as it is")


def test_warnings_about_a_state_are_gone_when_the_task_moves_on() -> None:
    queued = replace(begun(Status.QUEUED), warnings=("queued_behind:3", *ABOUT_THE_REQUEST))
    stalled = stall_when_idle(queued, patience=60.0, now=queued.updated_at + 1860.0)
    assert stalled.warnings == (*ABOUT_THE_REQUEST, "idle:31")
    for seen in (Status.PROCESSING, Status.SUCCEEDED, Status.FAILED):
        images = (Image(1, "https://seen.example/1"),) if seen is Status.SUCCEEDED else ()
        for task in (queued, stalled):
            moved = merge(task, Observation(status=seen, upstream_status="OTHER", images=images), LATER)
            assert (moved.status, moved.warnings) == (seen, ABOUT_THE_REQUEST)


def test_a_task_that_is_seen_again_is_not_unknown_any_more() -> None:
    stalled = stall(begun(Status.PROCESSING), "unknown", LATER)
    seen = merge(stalled, Observation(status=Status.PROCESSING, upstream_status=stalled.upstream_status), LATER + 1)
    assert (seen.status, seen.warnings) == (Status.STALLED, ())


def test_what_was_wrong_with_the_pictures_is_what_the_newest_poll_says() -> None:
    bare = replace(begun(Status.SUCCEEDED), images=(), warnings=("no_pictures", *ABOUT_THE_REQUEST))
    one = (Image(1, "https://seen.example/1"),)
    some = merge(bare, Observation(status=Status.SUCCEEDED, images=one, warnings=("links_unusable:3:4",)), LATER)
    assert some.warnings == (*ABOUT_THE_REQUEST, "links_unusable:3:4")
    four = tuple(Image(n, f"https://seen.example/{n}") for n in (1, 2, 3, 4))
    assert merge(some, Observation(status=Status.SUCCEEDED, images=four), LATER).warnings == ABOUT_THE_REQUEST


@pytest.mark.parametrize("status", Status)
def test_what_a_task_says_of_itself_follows_from_its_state(status: Status) -> None:
    task = task_in(status)
    assert (task.is_open, task.is_polled) == (status in OPEN, status in POLLED)
    assert task.is_moving == (status in POLLED or status is Status.SUBMITTING)
    assert (task.handle, replace(task, task_id="77").handle) == ("sub_1", "77")


# --- the merge


def test_success_brings_the_pictures_and_ends_the_task() -> None:
    images = (Image(1, "https://seen.example/1"),)
    before = replace(begun(Status.PROCESSING), progress=40, upstream_eta=9.0)
    seen = Observation(
        status=Status.SUCCEEDED, upstream_status="TASK_STATUS_SUCCEED", images=images, eta_seconds=1.0, warnings=("w",)
    )
    assert merge(before, seen, LATER) == replace(
        before,
        status=Status.SUCCEEDED,
        upstream_status="TASK_STATUS_SUCCEED",
        images=images,
        progress=100,
        upstream_eta=None,
        warnings=("w",),
        updated_at=LATER,
        finished_at=LATER,
    )


UNLISTED = Observation(status=Status.SUCCEEDED, upstream_status="TASK_STATUS_SUCCEED", warnings=("no picture",))


@pytest.mark.parametrize("start", [Status.QUEUED, Status.PROCESSING, Status.STALLED])
def test_a_success_that_does_not_list_its_pictures_yet_is_still_open(start: Status) -> None:
    waiting = merge(begun(start), UNLISTED, LATER)
    assert waiting == replace(
        begun(Status.PROCESSING), upstream_status="TASK_STATUS_SUCCEED", updated_at=LATER, upstream_eta=None
    )
    assert merge(waiting, UNLISTED, LATER + UNLISTED_SECONDS - 1) == waiting
    listed = replace(UNLISTED, images=(Image(1, "https://seen.example/1"),), warnings=())
    done = merge(waiting, listed, LATER + 5)
    assert (done.status, done.images, done.warnings) == (Status.SUCCEEDED, listed.images, ())


def test_a_success_that_goes_on_listing_no_picture_is_one_without_pictures() -> None:
    waiting = merge(begun(Status.PROCESSING), UNLISTED, LATER)
    done = merge(waiting, UNLISTED, LATER + UNLISTED_SECONDS)
    assert (done.status, done.images, done.warnings) == (Status.SUCCEEDED, (), ("no picture",))


def test_failure_brings_its_reason_and_ends_the_task() -> None:
    failure = Failure("canceled", "by the user")
    seen = Observation(status=Status.FAILED, upstream_status="TASK_STATUS_CANCELED", failure=failure, eta_seconds=1.0)
    assert merge(begun(Status.QUEUED), seen, LATER) == replace(
        begun(Status.FAILED),
        upstream_status="TASK_STATUS_CANCELED",
        failure=failure,
        updated_at=LATER,
        finished_at=LATER,
    )


def test_a_failure_without_a_reason_is_still_a_failure() -> None:
    failed = merge(begun(Status.QUEUED), Observation(status=Status.FAILED), LATER)
    assert failed.failure == Failure("generation_failed", "")


def test_a_stalled_task_that_shows_the_state_it_stalled_in_stays_stalled() -> None:
    seen = Observation(status=Status.PROCESSING, upstream_status="TASK_STATUS_PROCESSING", progress=40)
    stalled = stall(merge(begun(Status.QUEUED), seen, THEN), "nothing moves", THEN)
    assert merge(stalled, seen, LATER) == stalled
    moved = merge(stalled, replace(seen, progress=41), LATER)
    assert moved == replace(stalled, status=Status.PROCESSING, progress=41, updated_at=LATER)


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.STALLED])
def test_a_status_that_goes_backwards_changes_nothing_at_all(status: Status) -> None:
    ahead = replace(begun(status), upstream_status="TASK_STATUS_PROCESSING", progress=40)
    late = Observation(status=Status.QUEUED, upstream_status="TASK_STATUS_QUEUED")
    assert merge(ahead, late, LATER) == ahead


def test_a_fresh_link_keeps_what_we_measured_and_saved() -> None:
    saved = Image(1, "https://old.example/1", "image/png", 64, 64, "/archive/1.png", fallback_url="https://old.example")
    lone = Image(2, "https://old.example/2")
    before = replace(begun(Status.SUCCEEDED), images=(saved, lone), finished_at=THEN)
    fresh = Observation(
        status=Status.SUCCEEDED,
        images=(
            Image(1, "https://new.example/1", fallback_url="https://new.example"),
            Image(3, "https://new.example/3"),
        ),
    )
    relinked = replace(saved, url="https://new.example/1", fallback_url="https://new.example")
    assert merge(before, fresh, LATER) == replace(
        before, images=(relinked, lone, Image(3, "https://new.example/3")), updated_at=LATER
    )


@given(tasks(), observations())
def test_an_observation_moves_a_task_by_the_table_only(task: Task, seen: Observation) -> None:
    after = merge(task, seen, LATER)
    assert after.status in {task.status, *MOVES[task.status]}
    assert after.status in {task.status, seen.status, Status.PROCESSING if is_unlisted(seen) else seen.status}


@given(tasks(), observations())
def test_an_observation_never_leaves_the_end(task: Task, seen: Observation) -> None:
    after = merge(task, seen, LATER)
    if not task.is_polled:
        before = replace(task, images=after.images, warnings=after.warnings, updated_at=after.updated_at)
        assert after == before, "only links may be renewed, with what is said of them"
    if task.status is not Status.SUCCEEDED and not task.is_polled:
        assert after == task


@given(tasks(), observations())
def test_nothing_known_is_lost_in_an_observation(task: Task, seen: Observation) -> None:
    after = merge(task, seen, LATER)
    assert (after.progress or 0) >= (task.progress or 0)
    assert {image.index for image in after.images} >= {image.index for image in task.images}
    assert set(after.warnings) >= set(task.warnings)
    assert len(set(after.warnings)) == len(after.warnings)
    assert after.upstream_status is not None or task.upstream_status is None
    for ours in ("submission_id", "task_id", "owner", "kind", "prompt", "parent_id", "index", "submitted_at"):
        assert getattr(after, ours) == getattr(task, ours)


def test_only_a_task_without_a_kind_takes_the_prompt_that_the_proxy_shows() -> None:
    """A description is asked for without a prompt: its prompts are what it makes."""
    task = Task(submission_id="sub_1", task_id="1", status=Status.QUEUED, updated_at=THEN, prompt="describe upload:1")
    running, done = Observation(status=Status.PROCESSING), Observation(status=Status.SUCCEEDED, prompt="a\nb", images=A)
    assert merge(merge(task, running, LATER), done, LATER).prompt == "a\nb"
    assert merge(task, running, LATER).prompt == "describe upload:1"
    assert merge(replace(task, kind=Kind.IMAGINE), done, LATER).prompt == "describe upload:1"


@given(tasks(), observations())
def test_the_same_observation_twice_is_one(task: Task, seen: Observation) -> None:
    once = merge(task, seen, LATER)
    assert merge(once, seen, LATER + 1) == once


@given(tasks(), observations())
def test_updated_at_moves_when_something_did_and_only_then(task: Task, seen: Observation) -> None:
    after = merge(task, seen, LATER)
    if replace(after, updated_at=task.updated_at) == task:
        assert after == task
    watched = ("status", "progress", "upstream_status", "images", "failure")
    if any(getattr(after, field) != getattr(task, field) for field in watched):
        assert after.updated_at == LATER


@given(tasks(), observations())
def test_a_task_is_finished_exactly_when_it_has_ended(task: Task, seen: Observation) -> None:
    after = merge(task, seen, LATER)
    assert (after.finished_at is not None) == (after.status in TERMINAL)
    assert after.failure is None or after.status in {Status.FAILED, Status.UNCONFIRMED, Status.REFUSED}


@given(st.lists(observations(), max_size=8).flatmap(lambda seen: st.tuples(st.just(seen), st.permutations(seen))))
def test_observations_in_any_order_end_where_one_of_them_saw_the_end(
    drawn: tuple[list[Observation], list[Observation]],
) -> None:
    for order in drawn:
        rank = {Status.QUEUED: 0, Status.PROCESSING: 1, Status.SUCCEEDED: 2, Status.FAILED: 2}
        task = begun(Status.QUEUED)
        for at, seen in enumerate(order):
            before, task = task, merge(task, seen, LATER + at)
            assert rank[task.status] >= rank[before.status]
        first_end = next((seen.status for seen in order if seen.status in TERMINAL and not is_unlisted(seen)), None)
        if first_end is not None:
            assert task.status is first_end
        else:
            assert rank[task.status] == max((min(rank[seen.status], 1) for seen in order), default=0)


def test_the_buttons_of_the_newest_poll_that_shows_any_count() -> None:
    task = replace(task_in(Status.PROCESSING), task_id="77")
    shown = merge(task, Observation(status=Status.SUCCEEDED, images=A, buttons=("Pan up",), offers=(Kind.REROLL,)), 1.0)
    assert (shown.buttons, shown.offers) == (("Pan up",), (Kind.REROLL,))
    bare = merge(shown, Observation(status=Status.SUCCEEDED, images=A), 2.0)
    assert bare == shown
    fewer = merge(shown, Observation(status=Status.SUCCEEDED, images=A, offers=(Kind.UPSCALE,)), 2.0)
    assert (fewer.buttons, fewer.offers) == ((), (Kind.UPSCALE,))
