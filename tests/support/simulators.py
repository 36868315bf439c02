"""A bare HTTP client of the simulator's API.

A plugin of pytest: its fixtures are there for every test.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from PIL import Image

from mj_mcp.simulator import Simulator

BEARER = {"Authorization": "Bearer test-key"}
PNG = b"\x89PNG\r\n\x1a\n"


class Clock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


class Agent:
    """A bare HTTP client of the API."""

    def __init__(self, sim: Simulator, http: httpx.AsyncClient) -> None:
        self.sim = sim
        self.http = http

    async def post(self, endpoint: str, body: Any) -> httpx.Response:
        return await self.http.post(f"{self.sim.url}/mj/submit/{endpoint}", json=body, headers=BEARER)

    async def fetch(self, task_id: str) -> httpx.Response:
        return await self.http.get(f"{self.sim.url}/mj/task/{task_id}/fetch", headers=BEARER)

    async def submit(self, endpoint: str, body: Any) -> str:
        answer = (await self.post(endpoint, body)).json()
        assert answer["code"] == 1, answer
        return str(answer["result"])

    async def imagine(self, prompt: str = "a red mug") -> str:
        return await self.submit("imagine", {"prompt": prompt})

    async def grid(self, prompt: str = "a red mug", images: int | None = None) -> str:
        task_id = await self.imagine(prompt)
        self.sim.finish(task_id, images=images)
        return task_id

    async def standing(self, task_id: str) -> tuple[str, int, int]:
        task = (await self.fetch(task_id)).json()["task"]
        return task["status"].removeprefix("TASK_STATUS_"), task["progress_percent"], task["eta"]

    async def links(self, task_id: str) -> list[str]:
        return [image["image_url"] for image in (await self.fetch(task_id)).json()["images"]]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5) as client:
        yield client


@pytest.fixture
async def agent(http: httpx.AsyncClient) -> AsyncIterator[Agent]:
    """An agent of a simulator whose pictures are tiny."""
    async with Simulator(job_seconds=None, image_edge=64) as simulator:
        yield Agent(simulator, http)


def image(body: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(body))
    opened.load()
    return opened


class FlatAgent(Agent):
    """A bare client of a proxy with flat tasks, which sends its key as that proxy wants it."""

    def __init__(self, sim: Simulator, http: httpx.AsyncClient, header: dict[str, str]) -> None:
        super().__init__(sim, http)
        self.header = header

    async def post(self, endpoint: str, body: Any) -> httpx.Response:
        return await self.http.post(f"{self.sim.url}/mj/submit/{endpoint}", json=body, headers=self.header)

    async def get(self, path: str) -> httpx.Response:
        return await self.http.get(f"{self.sim.url}{path}", headers=self.header)

    async def fetch(self, task_id: str) -> httpx.Response:
        return await self.get(f"/mj/task/{task_id}/fetch")

    async def task(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.fetch(task_id)).json()
        return found

    async def custom_id(self, task_id: str, name: str) -> str:
        """The id of the only button whose id starts like this."""
        (found,) = [
            button["customId"]
            for button in (await self.task(task_id))["buttons"]
            if button["customId"].startswith(f"{name}::")
        ]
        return str(found)

    async def press(self, task_id: str, name: str, **more: Any) -> httpx.Response:
        """Press the button whose id starts like this."""
        custom_id = await self.custom_id(task_id, name)
        return await self.post("action", {"taskId": task_id, "customId": custom_id} | more)

    async def upscale(self) -> str:
        """The id of a finished upscale of a finished grid's second picture."""
        task_id = str((await self.press(await self.grid(), "MJ::JOB::upsample::2")).json()["result"])
        self.sim.finish(task_id)
        return task_id


SECRET = {"mj-api-secret": "test-key"}
