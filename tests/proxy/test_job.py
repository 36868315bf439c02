"""The job object, and what an API of jobs and numbered pictures is sent. Samples are its documentation's."""

from __future__ import annotations

from typing import Any

import pytest
from answers import answer

from mj_mcp.logs import redactor
from mj_mcp.proxy import (
    Accepted,
    Blend,
    Change,
    Describe,
    Detection,
    Imagine,
    Order,
    OutcomeUnknown,
    Press,
    Proxy,
    Refused,
    Unknown,
)
from mj_mcp.proxy.dialects.table import DIALECTS, dialect_of
from mj_mcp.proxy.fetched import read_fetch
from mj_mcp.proxy.http import Http, NoAnswer
from mj_mcp.proxy.orders import Post
from mj_mcp.proxy.outcomes import Trouble
from mj_mcp.simulator import Simulator
from mj_mcp.tasks import Failure, Image, Kind, Observation, Status, WarningCode
from mj_mcp.urls import with_part

ID = "a616de55-6130-4e1f-b8cd-531ed0599353"
GRID = "https://cdn.example/temp/1760408558306.png"
FOUR = [f"https://cdn.example/mj/{ID}_{n}.png" for n in range(4)]
ALLOWED = {"upscale": [0, 1, 2, 3], "variation": [0, 1, 2, 3], "reroll": True}
NO_ERROR = {"code": 0, "raw_message": "", "message": "", "detail": None}

job_dialect = DIALECTS["job"]
redact = redactor("sk-canary/5f1b+77")


def job(status: str, task_type: str = "diffusion", error: dict[str, Any] | None = None, **output: Any) -> Any:
    return {
        "job_id": ID,
        "model": "midjourney",
        "task_type": task_type,
        "status": status,
        "config": {"service_mode": "public", "webhook_config": {"endpoint": "", "secret": ""}},
        "input": None,
        "output": {"image_url": "", "image_urls": None, "seed": ""} | output,
        "meta": {"created_at": "2025-12-17T11:08:36Z", "usage": {"type": "point", "frozen": 80, "consume": 0}},
        "detail": None,
        "logs": [],
        "error": error or NO_ERROR,
    }


def refusal(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "raw_message": message, "detail": None}


def seen(fields: dict[str, Any]) -> Observation:
    observation = read_fetch(answer(fields), redact)
    assert isinstance(observation, Observation)
    return observation


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", Status.QUEUED),
        ("staged", Status.QUEUED),
        ("processing", Status.PROCESSING),
        ("paused", Status.PROCESSING),
    ],
)
def test_an_open_job_has_its_status_and_nothing_else(word: str, status: Status) -> None:
    assert seen(job(word)) == Observation(status=status, kind=Kind.IMAGINE, upstream_status=word)


def test_four_links_are_four_pictures_and_each_falls_back_on_its_part_of_the_grid() -> None:
    done = seen(job("completed", image_url=GRID, image_urls=FOUR, available_actions=ALLOWED))
    assert done.images == tuple(
        Image(index, url, fallback_url=with_part(GRID, index)) for index, url in enumerate(FOUR, start=1)
    )
    assert (done.status, done.warnings, done.buttons) == (Status.SUCCEEDED, (), ())


@pytest.mark.parametrize(
    ("task_type", "output", "urls"),
    [
        ("diffusion", {"image_urls": FOUR}, FOUR),
        ("diffusion", {"image_url": GRID}, [with_part(GRID, index) for index in range(1, 5)]),
        ("pan", {"image_url": GRID, "image_urls": FOUR}, FOUR),
        ("upscale", {"image_url": GRID, "image_urls": [GRID]}, [GRID]),
        ("upscale", {"image_url": GRID}, [GRID]),
        ("video_diffusion", {"video_urls": ["https://cdn.example/1.mp4"]}, ["https://cdn.example/1.mp4"]),
    ],
)
def test_what_is_listed_is_what_there_is(task_type: str, output: dict[str, Any], urls: list[str]) -> None:
    images = seen(job("completed", task_type, **output)).images
    assert [image.url for image in images] == urls
    assert (images[0].fallback_url is None) is (task_type != "pan")


@pytest.mark.parametrize(
    ("output", "warning"),
    [({}, WarningCode.NO_PICTURES.of()), ({"image_urls": ["ftp://x/1.png"]}, WarningCode.LINKS_UNUSABLE.of(1, 1))],
)
def test_a_success_without_a_usable_link_says_so(output: dict[str, Any], warning: str) -> None:
    done = seen(job("completed", **output))
    assert (done.images, done.warnings) == ((), (warning,))


@pytest.mark.parametrize(
    ("error", "said"),
    [(refusal(400, "Banned prompt"), "Banned prompt"), (NO_ERROR, "the proxy gave no reason")],
)
def test_a_failed_job_gives_its_reason(error: dict[str, Any], said: str) -> None:
    assert seen(job("failed", "variation", error)).failure == Failure("generation_failed", said)


def test_an_unknown_job_and_a_refused_key_are_told_apart() -> None:
    assert read_fetch(answer(refusal(404, "Job not found"), 404), redact) == Unknown()
    refused = read_fetch(answer(refusal(401, "Failed to verify api key"), 401), redact)
    assert isinstance(refused, Trouble)
    assert refused.code == "unauthorized"


def test_it_is_not_found_out_by_itself() -> None:
    assert dialect_of(answer(refusal(404, "Not found"), 404)).name == "gateway"


# --- what it is sent


@pytest.mark.parametrize(
    ("order", "path", "body"),
    [
        (Imagine("a cat --v 7"), "diffusion", {"text": "a cat --v 7"}),
        (Change(Kind.UPSCALE, ID, 1), "upscale", {"jobId": ID, "imageNo": 0, "type": 0}),
        (Change(Kind.UPSCALE, ID, 4, shorthand=True), "upscale", {"jobId": ID, "imageNo": 3, "type": 0}),
        (Change(Kind.VARIATION, ID, 3), "variation", {"jobId": ID, "imageNo": 2, "type": 1}),
        (Change(Kind.REROLL, ID), "reroll", {"jobId": ID}),
    ],
)
def test_a_submit_holds_the_documented_fields_and_counts_pictures_from_0(
    order: Order, path: str, body: dict[str, Any]
) -> None:
    assert job_dialect.post(order, "sub_1", None) == Post(f"/v1/{path}", body)


@pytest.mark.parametrize(
    "order", [Press(ID, "Zoom"), Describe("data:1"), Blend(("data:1", "data:2")), Imagine("a cat", ("data:1",))]
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(order: Order) -> None:
    refused = job_dialect.post(order, "sub_1", None)
    assert isinstance(refused, Failure)
    assert refused.code == "unsupported"


# --- what became of a submit


@pytest.mark.parametrize("status", ["pending", "staged", "processing", "completed", "failed", "next"])
def test_a_job_object_is_a_job_that_exists(status: str) -> None:
    fields = job(status, error=refusal(500, "too late") if status == "failed" else None)
    assert job_dialect.read_submit(answer(fields), redact) == Accepted(ID)


@pytest.mark.parametrize(
    ("status", "message", "code", "about_key"),
    [
        (400, "Invalid request parameters", "rejected", None),
        (401, "Failed to verify api key", "unauthorized", 401),
        (402, "Insufficient credits", "unauthorized", 402),
        (403, "Permission denied", "unauthorized", 403),
        (403, "Sensitive content detected", "prompt_refused", None),
        (404, "Job not found", "rejected", None),
        (422, "Invalid parameter values", "rejected", None),
        (429, "Too many concurrent jobs", "busy", None),
    ],
)
def test_a_refusal_is_read_by_its_status(status: int, message: str, code: str, about_key: int | None) -> None:
    refused = job_dialect.read_submit(answer(refusal(status, message), status), redact)
    assert isinstance(refused, Refused)
    assert (refused.failure.code, refused.status) == (code, about_key)
    assert message in refused.failure.message


@pytest.mark.parametrize(
    "answered",
    [
        answer(refusal(500, "Internal server error"), 500),
        answer(job("pending"), 502),
        answer(job("pending") | {"job_id": ""}),
        answer(job("pending") | {"job_id": "../x"}),
        answer({"job": {"id": ID}}),
        NoAnswer(sent=True, reason="no answer in time"),
    ],
)
def test_whatever_may_have_been_charged_is_an_unknown_outcome(answered: Any) -> None:
    assert isinstance(job_dialect.read_submit(answered, redact), OutcomeUnknown)


# --- the free check


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("key", "path", "code"), [("k", "/api", None), ("wrong", "/api", "unauthorized"), ("k", "", "upstream_error")]
)
async def test_the_check_sends_the_key_in_its_own_header_and_tells_a_wrong_path(
    key: str, path: str, code: str | None
) -> None:
    async with Simulator(dialect="job", key="k", prefix="/api") as sim:
        http = Http(sim.url.removesuffix("/api") + path, key)
        try:
            found, fetched = await Proxy(http, redact, Detection(http, dialect="job")).identify()
        finally:
            await http.aclose()
        assert (found.dialect, found.auth) == (job_dialect, "x-api-key")
        assert fetched == Unknown() if code is None else isinstance(fetched, Trouble) and fetched.code == code
        for request in sim.requests:
            assert request.headers["x-api-key"] == key
            assert not {"authorization", "mj-api-secret"} & request.headers.keys()
