"""The simulator's pictures: their shapes, their links, and the hostile ones."""

from __future__ import annotations

import json
import statistics
import struct
from collections.abc import Callable

import httpx
import pytest
from simulators import BEARER, PNG, Agent, Clock, image

from mj_mcp.simulator import KINDS, Simulator

pytestmark = pytest.mark.anyio


async def test_pictures_differ_and_keep_the_aspect_ratio(agent: Agent) -> None:
    task_id = await agent.grid("a wide 🐀 红 view --ar 2:1")
    bodies = [(await agent.http.get(link)).content for link in await agent.links(task_id)]
    assert [image(body).size for body in bodies] == [(64, 32)] * 4
    assert len(set(bodies)) == 4


async def test_a_prompt_of_broken_unicode_is_drawn_all_the_same(agent: Agent) -> None:
    body, headers = json.dumps({"prompt": "half a rat \ud83d"}), BEARER | {"Content-Type": "application/json"}
    answer = await agent.http.post(f"{agent.sim.url}/mj/submit/imagine", content=body, headers=headers)
    agent.sim.finish(answer.json()["result"])
    link = (await agent.links(answer.json()["result"]))[0]
    assert image((await agent.http.get(link)).content).size == (64, 64)


@pytest.mark.parametrize(
    ("prompt", "size"),
    [("mug", (64, 64)), ("mug --ar 0:1", (64, 64)), ("mug --aspect 1:2 --v 7", (32, 64)), ("mug --ar 99:1", (64, 16))],
)
async def test_the_size_follows_the_prompt(agent: Agent, prompt: str, size: tuple[int, int]) -> None:
    link = (await agent.links(await agent.grid(prompt)))[0]
    assert image((await agent.http.get(link)).content).size == size


async def test_an_upscale_shows_the_parents_picture_at_twice_the_edge(agent: Agent) -> None:
    parent = await agent.grid()
    upscale = await agent.submit("simple-change", {"content": f"{parent} U3"})
    agent.sim.finish(upscale)
    small = image((await agent.http.get((await agent.links(parent))[2])).content)
    large = image((await agent.http.get((await agent.links(upscale))[0])).content)
    assert large.size == (128, 128)
    sky = (0, 0, 64, 24)
    apart = zip(small.crop(sky).tobytes(), large.resize((64, 64)).crop(sky).tobytes(), strict=True)
    assert statistics.mean(abs(one - other) for one, other in apart) < 4


async def test_a_link_needs_its_signature(agent: Agent) -> None:
    one, two = (await agent.links(await agent.grid()))[:2]
    spoiled = [one.partition("?")[0], one.replace("sig=", "sig=0"), two.partition("?")[0] + "?" + one.partition("?")[2]]
    assert [(await agent.http.get(link)).status_code for link in spoiled] == [403] * 3


async def test_an_expired_link_is_gone_and_a_new_fetch_gives_a_fresh_one(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(job_seconds=None, image_edge=64, link_seconds=60, now=clock) as sim:
        agent = Agent(sim, http)
        task_id = await agent.grid()
        assert {item["image_url_ttl"] for item in (await agent.fetch(task_id)).json()["images"]} == {"60"}
        old = (await agent.links(task_id))[0]
        before = await http.get(old)
        clock.time += 60
        after, fresh = await http.get(old), await http.get((await agent.links(task_id))[0])
    assert [before.status_code, after.status_code, fresh.status_code] == [200, 410, 200]


def _is(form: str) -> Callable[[httpx.Response], bool]:
    return lambda answer: image(answer.content).format == form


def _leads_to(target: str) -> Callable[[httpx.Response], bool]:
    return lambda answer: answer.status_code == 302 and answer.headers["location"].endswith(target)


def _mean(answer: httpx.Response) -> float:
    return statistics.mean(image(answer.content).convert("L").tobytes())


SERVED: dict[str, Callable[[httpx.Response], bool]] = {
    "private": _leads_to("http://10.0.0.1/x.png"),
    "metadata": _leads_to("http://169.254.169.254/latest/x.png"),
    "redirect-private": _leads_to("http://10.0.0.1/x.png"),
    "redirect-metadata": _leads_to("http://169.254.169.254/latest/x.png"),
    "redirect-loop": _leads_to("/hostile/redirect-loop"),
    "redirect-ok": _leads_to("/hostile/png"),
    "png": _is("PNG"),
    "jpeg": _is("JPEG"),
    "webp": _is("WEBP"),
    "gif": _is("GIF"),
    "wrong-extension": lambda answer: answer.headers["content-type"] == "image/png" and _is("JPEG")(answer),
    "html": lambda answer: answer.headers["content-type"] == "image/png" and b"<html>" in answer.content,
    "missing": lambda answer: answer.status_code == 404,
    "noise": lambda answer: len(answer.content) > 64 * 64 * 3,
    "dark": lambda answer: _mean(answer) < 8,
    "light": lambda answer: _mean(answer) > 248,
    "truncated": lambda answer: answer.content.startswith(PNG) and b"IEND" not in answer.content,
    "pixel-bomb": lambda answer: (
        struct.unpack(">II", answer.content[16:24]) == (30_000, 30_000) and len(answer.content) < 120_000
    ),
}
STREAMED = {"endless", "drip", "gzip-bomb"}


@pytest.mark.parametrize("kind", sorted(SERVED))
async def test_a_hostile_picture_is_what_its_name_says(agent: Agent, kind: str) -> None:
    assert SERVED[kind](await agent.http.get(f"{agent.sim.url}/hostile/{kind}"))


def test_every_hostile_kind_is_tested() -> None:
    assert SERVED.keys() | STREAMED == KINDS


@pytest.mark.parametrize(("kind", "enough"), [("endless", 1_000_000), ("drip", 2), ("gzip-bomb", 100_000)])
async def test_a_stream_may_be_left_in_the_middle(agent: Agent, kind: str, enough: int) -> None:
    async with agent.http.stream("GET", f"{agent.sim.url}/hostile/{kind}") as answer:
        got = b""
        async for chunk in answer.aiter_raw():
            got += chunk
            if len(got) >= enough:
                break
    assert len(got) < 3_000_000
    assert got.startswith((PNG[:2], b"\x1f\x8b"))


async def test_a_gzip_bomb_begins_like_a_picture_and_does_not_end_soon(agent: Agent) -> None:
    async with agent.http.stream("GET", f"{agent.sim.url}/hostile/gzip-bomb") as answer:
        size = 0
        async for chunk in answer.aiter_bytes(1_000_000):
            assert size or chunk.startswith(PNG)
            size += len(chunk)
            if size > 100_000_000:
                break
    assert size > 100_000_000


async def test_one_picture_or_all_coming_ones_may_be_hostile(agent: Agent) -> None:
    agent.sim.pictures_are("private")
    first = await agent.grid()
    agent.sim.pictures_are(None)
    second = await agent.grid()
    agent.sim.picture(first, 2, None)
    agent.sim.picture(second, 3, "jpeg")
    assert (await agent.links(first))[::2] == ["http://10.0.0.1/x.png"] * 2
    links = [(await agent.links(first))[1], *(await agent.links(second))[1:3]]
    assert [image((await agent.http.get(link)).content).format for link in links] == ["PNG", "PNG", "JPEG"]
    with pytest.raises(ValueError, match="kinds are"):
        agent.sim.pictures_are("nonsense")
