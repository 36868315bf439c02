"""Calls that many tests begin with."""

from __future__ import annotations

import httpx
from conftest import KEY, Caller

from mj_mcp.app import Timings
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.simulator import Simulator

HASTY = Timings(polling=PollTimings(failed=0.02, asked=0.1))
"""Polls that fail are repeated as soon as the budget of polls allows it."""


async def imagine(caller: Caller, prompt: str = "a mug") -> str:
    """An open task's id."""
    return str((await caller.task("generate_image", prompt=prompt, wait_seconds=0))["task_id"])


async def foreign(sim: Simulator) -> str:
    """A job that somebody else bought on the same account."""
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as client:
        answer = await client.post(f"{sim.url}/mj/submit/imagine", json={"prompt": "elsewhere"})
    return str(answer.json()["result"])
