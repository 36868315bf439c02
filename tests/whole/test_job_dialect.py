"""The main job on an API of jobs and numbered pictures: through a real client, to the letter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from conftest import KEY, Caller

from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

NAMED = {"MJ_PROXY_DIALECT": "job"}
KEY_HEADERS = {"authorization", "mj-api-secret", "x-api-key"}


def proxy() -> Simulator:
    return Simulator(dialect="job", key=KEY, job_seconds=None, image_edge=128, prefix="/api")


async def test_the_whole_main_job_runs_where_the_dialect_is_named(spawn: Spawn) -> None:
    async with proxy() as sim, spawn(sim, **NAMED) as caller:
        expected: list[tuple[str, dict[str, Any]]] = []

        async def buy(pictures: int, path: str, body: dict[str, Any], tool: str, **arguments: Any) -> dict[str, Any]:
            bought = await caller.task(tool, **arguments, wait_seconds=0)
            expected.append((f"/api/v1/{path}", body))
            sim.finish(bought["task_id"])
            done = await caller.task("get_task", task_id=bought["task_id"], wait_seconds=20)
            assert (done["status"], len(done["images"])) == ("succeeded", pictures)
            return done

        grid = await buy(4, "diffusion", {"text": "a mug --ar 3:2"}, "generate_image", prompt="a mug --ar 3:2")
        of = grid["task_id"]
        await buy(1, "upscale", {"jobId": of, "imageNo": 1, "type": 0}, "upscale_image", task_id=of, index=2)
        varied = await buy(4, "variation", {"jobId": of, "imageNo": 3, "type": 1}, "vary_image", task_id=of, index=4)
        await buy(4, "reroll", {"jobId": of}, "reroll", task_id=of)
        content = f"{varied['task_id']} U1"
        short = {"jobId": varied["task_id"], "imageNo": 0, "type": 0}
        await buy(1, "upscale", short, "simple_change", content=content)
        saved = await caller.task("save_images", task_id=of)
        pressed = await caller.error("press_button", task_id=of, button="Zoom Out 2x", wait_seconds=0)

        assert len({file["sha256"] for file in saved["files"]}) == 4
        assert pressed["code"] == "unsupported"
        assert [(request.path, request.json) for request in sim.submits()] == expected
        for request in sim.submits() + sim.polls():
            assert KEY_HEADERS & request.headers.keys() == {"x-api-key"}
            assert request.headers["x-api-key"] == KEY
        pictures = [request for request in sim.requests if "/pictures/" in request.path]
        assert pictures
        assert not [request for request in pictures if KEY_HEADERS & request.headers.keys()]
        assert sim.duplicates() == []


@pytest.mark.parametrize("fault", [faults.reset_after_accept(), faults.status(500), faults.status(502)])
async def test_a_submit_whose_answer_is_lost_is_unconfirmed_and_not_sent_again(fault: Any, spawn: Spawn) -> None:
    async with proxy() as sim, spawn(sim, **NAMED) as caller:
        sim.inject("diffusion", fault)
        assert (await caller.error("generate_image", prompt="a mug", wait_seconds=3))["code"] == "unconfirmed"
        assert (await caller.error("generate_image", prompt="a mug", wait_seconds=3))["code"] == "unconfirmed"
        assert sim.fired[fault.name] == 1
        assert len(sim.submits()) == 1


async def test_a_banned_prompt_stops_nobody_else_and_a_failed_job_says_why(spawn: Spawn) -> None:
    async with proxy() as sim, spawn(sim, **NAMED) as caller:
        refused = await caller.error("generate_image", prompt="a forbiddenword", wait_seconds=0)
        assert (refused["code"], sim.ledger) == ("prompt_refused", [])
        bought = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.fail(bought["task_id"], "the GPU is on fire")
        done = await caller.task("get_task", task_id=bought["task_id"], wait_seconds=20)
        assert (done["status"], done["failure"]["message"]) == ("failed", "the GPU is on fire")
