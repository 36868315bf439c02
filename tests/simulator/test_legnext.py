"""What Legnext answers, held to its documentation over real HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from simulators import BEARER, Clock

from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

KEY = {"x-api-key": "test-key"}
FOUR = [0, 1, 2, 3]


class JobAgent:
    def __init__(self, sim: Simulator, http: httpx.AsyncClient) -> None:
        self._sim, self._http = sim, http

    async def post(self, endpoint: str, **body: Any) -> httpx.Response:
        return await self._http.post(f"{self._sim.url}/v1/{endpoint}", json=body, headers=KEY)

    async def job(self, job_id: str, header: dict[str, str] = KEY) -> httpx.Response:
        return await self._http.get(f"{self._sim.url}/v1/job/{job_id}", headers=header)

    async def grid(self) -> str:
        job_id = str((await self.post("diffusion", text="a cat")).json()["job_id"])
        self._sim.finish(job_id)
        return job_id


async def test_a_job_is_pending_staged_processing_and_completed_with_four_links_and_what_may_be_done(
    http: httpx.AsyncClient,
) -> None:
    clock = Clock()
    async with Simulator(dialect="job", job_seconds=100, image_edge=64, now=clock) as sim:
        agent = JobAgent(sim, http)
        begun = (await agent.post("diffusion", text="a cat --ar 3:2")).json()
        assert begun["output"] == {"image_url": "", "image_urls": None, "seed": ""}
        seen = []
        for passed in (0, 6, 40, 60):
            clock.time += passed
            seen.append((await agent.job(begun["job_id"])).json())
        assert [job["status"] for job in seen] == ["pending", "staged", "processing", "completed"]
        output = seen[-1]["output"]
        assert len({output["image_url"], *output["image_urls"]}) == 5
        assert output["available_actions"]["upscale"] == FOUR
        assert output["available_actions"]["reroll"] is True
        for link in (output["image_url"], *output["image_urls"]):
            assert (await http.get(link)).headers["content-type"] == "image/png"


async def test_follow_ups_count_pictures_from_0_and_an_upscaled_picture_allows_none(http: httpx.AsyncClient) -> None:
    async with Simulator(dialect="job", job_seconds=None, image_edge=64) as sim:
        agent = JobAgent(sim, http)
        grid = await agent.grid()
        upscaled = (await agent.post("upscale", jobId=grid, imageNo=3, type=0)).json()["job_id"]
        await agent.post("variation", jobId=grid, imageNo=0, type=1)
        await agent.post("reroll", jobId=grid)
        assert [(job.action, job.index) for job in sim.jobs.values()][1:] == [
            ("UPSCALE", 4),
            ("VARIATION", 1),
            ("REROLL", None),
        ]
        sim.finish(upscaled)
        output = (await agent.job(upscaled)).json()["output"]
        assert output["image_urls"] == [output["image_url"]]
        assert "available_actions" not in output
        assert (await agent.post("upscale", jobId=upscaled, imageNo=0, type=0)).status_code == 400


async def test_a_refusal_is_an_http_error_with_its_code_in_the_body_and_creates_nothing(
    http: httpx.AsyncClient,
) -> None:
    async with Simulator(dialect="job", job_seconds=None) as sim:
        agent = JobAgent(sim, http)
        refused = [
            (await agent.post("diffusion", text=""), 400),
            (await agent.post("diffusion", text="a cat", prompt="a cat"), 400),
            (await agent.post("diffusion", text="a forbiddenword"), 403),
            (await agent.post("upscale", jobId="gone", imageNo=0, type=0), 404),
            (await agent.post("upscale", jobId="gone", imageNo=4, type=0), 422),
            (await agent.post("variation", jobId="gone", imageNo=0, type=2), 422),
            (await agent.job("gone"), 404),
            (await agent.job("gone", BEARER), 401),
        ]
        for answer, status in refused:
            assert (answer.status_code, answer.json()["code"]) == (status, status)
        assert not sim.ledger
