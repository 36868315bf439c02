"""The simulator is what every other test trusts: it is held here, over real HTTP, to the specification's words."""

import ast
import asyncio
import io
import json
import statistics
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import mj_mcp.simulator
from mj_mcp.simulator import KINDS, Charge, Fault, Simulator, faults

pytestmark = pytest.mark.anyio

BEARER = {"Authorization": "Bearer test-key"}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(job_seconds=None, image_edge=64) as simulator:
        yield simulator


@pytest.fixture
def agent(sim: Simulator, http: httpx.AsyncClient) -> Agent:
    return Agent(sim, http)


def image(body: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(body))
    opened.load()
    return opened


# --- the specification


async def test_a_submit_answers_a_numeric_id_of_sixteen_digits(agent: Agent) -> None:
    answer = (await agent.post("imagine", {"prompt": "a red mug"})).json()
    assert answer == {"code": 1, "description": "提交成功", "result": agent.sim.ledger[0].task_id}
    assert len(answer["result"]) == 16
    assert answer["result"].isdecimal()


async def test_a_finished_grid_is_told_in_exactly_the_documented_shape(agent: Agent) -> None:
    task_id = await agent.grid()
    answer = (await agent.fetch(task_id)).json()
    links = [item.pop("image_url") for item in answer["images"]]
    assert answer == {
        "extra": {"has_nsfw_contents": []},
        "task": {
            "task_id": task_id,
            "task_type": "MIDJOURNEY_TEXT_TO_IMAGE_FAST_MODE",
            "status": "TASK_STATUS_SUCCEED",
            "reason": "",
            "eta": 0,
            "progress_percent": 0,
        },
        "images": [{"image_url_ttl": "0", "image_type": "png", "nsfw_detection_result": None}] * 4,
        "videos": [],
        "audios": [],
    }
    assert len(set(links)) == 4
    assert all(link.startswith(f"{agent.sim.url}/pictures/{task_id}/") for link in links)


@pytest.mark.parametrize("shortened", [False, True], ids=["change", "simple-change"])
async def test_changes_make_new_tasks_whose_pictures_follow_from_the_parent(agent: Agent, shortened: bool) -> None:
    parent = await agent.grid()

    async def change(action: str, letter: str, index: int | None) -> str:
        body = {"taskId": parent, "action": action} | ({} if index is None else {"index": index})
        short = {"content": f"{parent} {letter}{index or ''}"}
        task_id = await (agent.submit("simple-change", short) if shortened else agent.submit("change", body))
        agent.sim.finish(task_id)
        return task_id

    upscale, variation = await change("UPSCALE", "U", 2), await change("VARIATION", "V", 2)
    reroll = await change("REROLL", "R", None)
    assert [len(await agent.links(task_id)) for task_id in (upscale, variation, reroll)] == [1, 4, 4]
    assert len({parent, upscale, variation, reroll}) == 4
    jobs = agent.sim.jobs
    assert [(jobs[i].action, jobs[i].parent_id, jobs[i].index) for i in (upscale, variation, reroll)] == [
        ("UPSCALE", parent, 2),
        ("VARIATION", parent, 2),
        ("REROLL", parent, None),
    ]


REFUSED: dict[str, tuple[str, Any, int]] = {
    "no prompt": ("imagine", {}, 4),
    "an empty prompt": ("imagine", {"prompt": "  "}, 4),
    "a prompt that is no text": ("imagine", {"prompt": 1}, 4),
    "a prompt beyond the limit": ("imagine", {"prompt": "x" * 8193}, 4),
    "an undocumented field": ("imagine", {"prompt": "mug", "state": "x"}, 4),
    "a list for a body": ("imagine", ["mug"], 4),
    "a banned word": ("imagine", {"prompt": "a ForbiddenWord"}, 24),
    "an unknown parent": ("change", {"taskId": "9", "action": "UPSCALE", "index": 1}, 3),
    "an unknown parent in short": ("simple-change", {"content": "9 U1"}, 3),
    "an open parent": ("change", {"taskId": "OPEN", "action": "UPSCALE", "index": 1}, 4),
    "no index": ("change", {"taskId": "GRID", "action": "UPSCALE"}, 4),
    "index 0": ("change", {"taskId": "GRID", "action": "VARIATION", "index": 0}, 4),
    "index 5": ("change", {"taskId": "GRID", "action": "VARIATION", "index": 5}, 4),
    "index as text": ("change", {"taskId": "GRID", "action": "UPSCALE", "index": "1"}, 4),
    "index as truth": ("change", {"taskId": "GRID", "action": "UPSCALE", "index": True}, 4),
    "index as a float": ("change", {"taskId": "GRID", "action": "UPSCALE", "index": 1.0}, 4),
    "a reroll with an index": ("change", {"taskId": "GRID", "action": "REROLL", "index": 1}, 4),
    "a reroll with a null index": ("change", {"taskId": "GRID", "action": "REROLL", "index": None}, 4),
    "an unknown action": ("change", {"taskId": "GRID", "action": "upscale", "index": 1}, 4),
    "an id that is no text": ("change", {"taskId": 7, "action": "UPSCALE", "index": 1}, 4),
    "an upscale of an upscale": ("change", {"taskId": "SINGLE", "action": "UPSCALE", "index": 1}, 4),
    "the fourth of two pictures": ("change", {"taskId": "PAIR", "action": "UPSCALE", "index": 4}, 4),
    "a short form with U5": ("simple-change", {"content": "GRID U5"}, 4),
    "a short reroll with a number": ("simple-change", {"content": "GRID R1"}, 4),
    "a short form in lower case": ("simple-change", {"content": "GRID u1"}, 4),
    "a short form with spaces": ("simple-change", {"content": "GRID  U1 "}, 4),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_the_specification_does_not_allow_is_refused_and_costs_nothing(agent: Agent, case: str) -> None:
    endpoint, body, code = REFUSED[case]
    tasks = {"OPEN": await agent.imagine(), "GRID": await agent.grid(), "PAIR": await agent.grid(images=2)}
    tasks["SINGLE"] = await agent.submit("simple-change", {"content": f"{tasks['GRID']} U1"})
    agent.sim.finish(tasks["SINGLE"])
    text = json.dumps(body)
    for name, task_id in tasks.items():
        text = text.replace(f'"{name}"', f'"{task_id}"').replace(f'"{name} ', f'"{task_id} ')
    charged = len(agent.sim.ledger)
    answer = (await agent.post(endpoint, json.loads(text))).json()
    assert answer["code"] == code
    assert "result" not in answer
    assert len(agent.sim.ledger) == charged


async def test_a_banned_word_is_named(agent: Agent) -> None:
    answer = (await agent.post("imagine", {"prompt": "a forbiddenword"})).json()
    assert answer["properties"] == {"bannedWord": "forbiddenword", "promptEn": "a forbiddenword"}


@pytest.mark.parametrize(
    ("content", "media_type"), [(b"{", "application/json"), (b"[" * 9999, "application/json"), (b"{}", "text/plain")]
)
async def test_a_body_that_is_no_json_is_refused(agent: Agent, content: bytes, media_type: str) -> None:
    headers = BEARER | {"Content-Type": media_type}
    answer = await agent.http.post(f"{agent.sim.url}/mj/submit/imagine", content=content, headers=headers)
    assert answer.json()["code"] == 4


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "test-key"}])
async def test_a_wrong_key_opens_nothing(agent: Agent, header: dict[str, str]) -> None:
    task_id = await agent.grid()
    posted = await agent.http.post(f"{agent.sim.url}/mj/submit/imagine", json={"prompt": "mug"}, headers=header)
    looked = await agent.http.get(f"{agent.sim.url}/mj/task/{task_id}/fetch", headers=header)
    assert [posted.status_code, looked.status_code] == [401, 401]
    assert "error" in posted.json()
    assert len(agent.sim.ledger) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/mj/nothing", 404),
        ("GET", "/mj/submit/imagine", 405),
        ("POST", "/mj/task/1/fetch", 405),
        ("GET", "/hostile/unheard-of", 404),
        ("HEAD", "/mj/task/1/fetch", 405),
    ],
)
async def test_other_addresses_answer_that_they_are_none(agent: Agent, method: str, path: str, status: int) -> None:
    assert (await agent.http.request(method, agent.sim.url + path)).status_code == status


async def test_below_a_prefix_everything_works_and_outside_is_html(http: httpx.AsyncClient) -> None:
    async with Simulator(job_seconds=None, prefix="/api/", image_edge=64) as sim:
        agent = Agent(sim, http)
        assert sim.url == f"http://127.0.0.1:{sim.port}/api"
        task_id = await agent.grid()
        picture = await http.get((await agent.links(task_id))[0])
        outside = await http.post(f"http://127.0.0.1:{sim.port}/mj/submit/imagine", json={}, headers=BEARER)
        assert picture.content.startswith(PNG)
        assert (outside.status_code, outside.headers["content-type"]) == (404, "text/html")
        assert [len(sim.submits()), len(sim.polls()), len(sim.polls(task_id))] == [1, 1, 1]


# --- jobs and time


async def test_a_job_moves_with_the_clock_and_tells_its_progress_when_asked_to(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(job_seconds=200, speed=2, report_progress=True, now=clock) as sim:
        agent = Agent(sim, http)
        task_id = await agent.imagine()
        seen = [await agent.standing(task_id)]
        for step in (10, 45, 44.9, 0.1):
            clock.time += step
            seen.append(await agent.standing(task_id))
    assert seen == [
        ("QUEUED", 0, 100),
        ("PROCESSING", 0, 90),
        ("PROCESSING", 50, 45),
        ("PROCESSING", 99, 1),
        ("SUCCEED", 100, 0),
    ]


async def test_progress_stays_silent_unless_asked_for(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(job_seconds=100, now=clock) as sim:
        agent = Agent(sim, http)
        task_id = await agent.imagine()
        clock.time += 50
        assert await agent.standing(task_id) == ("PROCESSING", 0, 0)


async def test_job_times_are_log_normal_around_thirty_seconds_and_repeat_with_the_seed(
    http: httpx.AsyncClient,
) -> None:
    async def times(seed: int) -> list[float]:
        async with Simulator(seed=seed, speed=10) as sim:
            for _ in range(60):
                await Agent(sim, http).imagine()
            return [job.seconds or 0 for job in sim.jobs.values()]

    first, again, other = await times(1), await times(1), await times(2)
    assert first == again != other
    assert 2.5 < statistics.median(first) < 3.5


async def test_a_prompt_may_ask_to_fail(http: httpx.AsyncClient) -> None:
    async with Simulator(job_seconds=0) as sim:
        agent = Agent(sim, http)
        answer = (await agent.fetch(await agent.imagine("fail please"))).json()
    assert (answer["task"]["status"], answer["images"]) == ("TASK_STATUS_FAILED", [])
    assert answer["task"]["reason"]


async def test_without_a_job_time_a_job_moves_only_when_the_test_says_so(agent: Agent) -> None:
    sim = agent.sim
    task_id = await agent.imagine()
    seen = [await agent.standing(task_id)]
    moves: list[Callable[[], None]] = [
        lambda: sim.process(task_id, 40, eta=12),
        lambda: sim.queue(task_id),
        lambda: sim.put(task_id, "TASK_STATUS_CANCELED"),
        lambda: sim.fail(task_id, "bad luck"),
        lambda: sim.finish(task_id, images=0),
    ]
    for move in moves:
        move()
        seen.append(await agent.standing(task_id))
    assert [status for status, _, _ in seen] == ["QUEUED", "PROCESSING", "QUEUED", "CANCELED", "FAILED", "SUCCEED"]
    assert seen[1] == ("PROCESSING", 40, 12)
    assert await agent.links(task_id) == []


async def test_ids_repeat_only_when_asked_to(http: httpx.AsyncClient) -> None:
    async def first(deterministic: bool) -> str:
        async with Simulator(job_seconds=None, deterministic_ids=deterministic) as sim:
            return await Agent(sim, http).imagine()

    assert await first(True) == await first(True)
    assert await first(False) != await first(False)


@pytest.mark.parametrize(("rule", "codes", "charges"), [("charge", [1, 1], 3), ("existing", [1, 21], 2)])
async def test_the_same_upscale_twice_is_charged_twice_or_names_the_old_task(
    http: httpx.AsyncClient, rule: Any, codes: list[int], charges: int
) -> None:
    async with Simulator(job_seconds=None, repeat_upscale=rule) as sim:
        agent = Agent(sim, http)
        body = {"content": f"{await agent.grid()} U1"}
        answers = [(await agent.post("simple-change", body)).json() for _ in range(2)]
        assert [answer["code"] for answer in answers] == codes
        assert (answers[0]["result"] == answers[1]["result"]) is (rule == "existing")
        assert len(sim.ledger) == charges


# --- records


async def test_a_charge_is_written_down_before_the_answer(http: httpx.AsyncClient, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    told: list[Charge] = []
    async with Simulator(job_seconds=None, ledger_path=path, on_charge=told.append) as sim:
        agent = Agent(sim, http)
        sim.inject("submit", faults.reset_after_accept())
        with pytest.raises(httpx.ReadError):
            await agent.imagine("lost")
        await agent.imagine("found")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["body"] for line in lines] == [{"prompt": "lost"}, {"prompt": "found"}]
        assert [Charge(**line) for line in lines] == sim.ledger == told
        assert [charge.seq for charge in sim.ledger] == [1, 2]


async def test_duplicates_are_charges_for_the_same_endpoint_and_body(agent: Agent) -> None:
    for prompt in ("one", "two", "one"):
        await agent.imagine(prompt)
    assert agent.sim.duplicates() == [agent.sim.ledger[2]]


async def test_every_request_is_seen_with_its_headers_and_body(agent: Agent) -> None:
    await agent.http.post(f"{agent.sim.url}/mj/submit/imagine?x=1", json={"prompt": "mug"}, headers={"X-Odd": "Yes"})
    (seen,) = agent.sim.submits()
    assert (seen.method, seen.path, seen.query, seen.json) == ("POST", "/mj/submit/imagine", "x=1", {"prompt": "mug"})
    assert seen.headers["x-odd"] == "Yes"


async def test_a_test_may_wait_for_what_will_be_seen(agent: Agent) -> None:
    waiting = asyncio.create_task(agent.sim.until(lambda: len(agent.sim.ledger) == 2))
    await agent.imagine()
    assert not waiting.done()
    await agent.imagine()
    await waiting
    with pytest.raises(TimeoutError):
        await agent.sim.until(lambda: False, timeout=0.01)


# --- pictures


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


async def test_an_expired_link_is_gone_and_a_new_look_gives_a_fresh_one(http: httpx.AsyncClient) -> None:
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


# --- faults


Outcome = Callable[[httpx.Response], bool] | type[httpx.TransportError]
SPOILED_SUBMITS: dict[str, tuple[Fault, Outcome, bool]] = {
    "a late answer": (faults.delay(0.01), lambda a: a.json()["code"] == 1, True),
    "a late job": (faults.delay(0.01, before_accept=True), lambda a: a.json()["code"] == 1, True),
    "silence after": (faults.hang(), httpx.ReadTimeout, True),
    "silence before": (faults.hang(after_accept=False), httpx.ReadTimeout, False),
    "reset before": (faults.reset_before_accept(), httpx.ReadError, False),
    "reset after": (faults.reset_after_accept(), httpx.ReadError, True),
    "close before": (faults.close_before_accept(), httpx.RemoteProtocolError, False),
    "close after": (faults.close_after_accept(), httpx.RemoteProtocolError, True),
    "half an answer": (faults.half_body(), httpx.RemoteProtocolError, True),
    "a dripping answer": (faults.drip_body(0.0001), lambda a: a.json()["code"] == 1, True),
    "502 before": (faults.status(502, b"bad gateway"), lambda a: a.text == "bad gateway", False),
    "502 after": (faults.status(502, accept=True), lambda a: a.status_code == 502, True),
    "307": (
        faults.status(307, headers={"Location": "http://x/"}),
        lambda a: a.headers["location"] == "http://x/",
        False,
    ),
    "204": (faults.status(204, accept=True), lambda a: a.content == b"", True),
    "retry-after": (faults.retry_after("soon"), lambda a: a.headers["retry-after"] == "soon", False),
    "a page": (faults.html(503), lambda a: a.status_code == 503 and "<html>" in a.text, False),
    "null": (faults.wrong_json(b"null", accept=True), lambda a: a.json() is None, True),
    "NaN": (faults.wrong_json(b'{"code": NaN}'), lambda a: a.text == '{"code": NaN}', False),
    "deep": (faults.wrong_json(faults.deep()), lambda a: len(a.content) == 200_000, False),
    "code 23": (faults.code(23), lambda a: a.json() == {"code": 23, "description": "so says the script"}, False),
    "code 30": (faults.code(30, http_status=429), lambda a: (a.status_code, a.json()["code"]) == (429, 30), False),
    "code 22": (
        faults.code(22, properties={"numberOfQueues": 3}, accept=True),
        lambda a: (
            (a.json()["code"], a.json()["properties"], len(a.json()["result"])) == (22, {"numberOfQueues": 3}, 16)
        ),
        True,
    ),
    "code 21": (faults.code(21, result="7"), lambda a: a.json()["result"] == "7", False),
    "a number": (faults.result_as("int"), lambda a: isinstance(a.json()["result"], int), True),
    "a list": (faults.result_as("list"), lambda a: len(a.json()["result"][0]) == 16, True),
    "no result": (faults.result_as("missing"), lambda a: a.json().keys() == {"code", "description"}, True),
    "a null result": (faults.result_as(None), lambda a: a.json()["result"] is None, True),
}


@pytest.mark.parametrize("case", SPOILED_SUBMITS)
async def test_a_spoiled_submit_is_charged_exactly_when_it_was_accepted(sim: Simulator, case: str) -> None:
    fault, outcome, charged = SPOILED_SUBMITS[case]
    sim.inject("imagine", fault)
    async with httpx.AsyncClient(timeout=0.1 if fault.way == "hang" else 5) as http:
        agent = Agent(sim, http)
        if isinstance(outcome, type):
            with pytest.raises(outcome):
                await agent.post("imagine", {"prompt": "mug"})
        else:
            assert outcome(await agent.post("imagine", {"prompt": "mug"}))
        assert sim.fired == {fault.name: 1}
        assert len(sim.ledger) == int(charged)
        await agent.imagine("the next one is well")
    assert len(sim.ledger) == 1 + int(charged)


SPOILED_LOOKS: dict[str, tuple[Fault, Callable[[httpx.Response], bool]]] = {
    "empty": (faults.empty(), lambda a: (a.status_code, a.content) == (200, b"")),
    "forget": (faults.forget(), lambda a: (a.status_code, a.content) == (200, b"")),
    "backwards": (
        faults.backwards(),
        lambda a: (a.json()["task"]["status"], a.json()["images"]) == ("TASK_STATUS_PROCESSING", []),
    ),
    "status_text": (faults.status_text("ODD"), lambda a: a.json()["task"]["status"] == "ODD"),
    "images_null": (faults.images_null(), lambda a: a.json()["images"] is a.json()["videos"] is None),
    "images_missing": (faults.images_missing(), lambda a: a.json().keys() == {"extra", "task"}),
    "stuck": (faults.stuck(), lambda a: a.json()["task"]["status"] == "TASK_STATUS_SUCCEED"),
    "status_500": (faults.status(500), lambda a: a.status_code == 500),
}


@pytest.mark.parametrize("name", SPOILED_LOOKS)
async def test_a_spoiled_look_is_spoiled_once(agent: Agent, name: str) -> None:
    fault, outcome = SPOILED_LOOKS[name]
    task_id = await agent.grid()
    agent.sim.inject("fetch", fault)
    assert outcome(await agent.fetch(task_id))
    assert agent.sim.fired == {name: 1}
    assert bool((await agent.fetch(task_id)).content) is (name != "forget")


async def test_a_stuck_task_never_moves_again(http: httpx.AsyncClient) -> None:
    clock = Clock()
    async with Simulator(job_seconds=100, now=clock) as sim:
        agent = Agent(sim, http)
        stuck, well = await agent.imagine("one"), await agent.imagine("two")
        clock.time += 50
        sim.inject("fetch", faults.stuck(stuck))
        await agent.fetch(well)
        clock.time += 10_000
        assert [(await agent.standing(task_id))[0] for task_id in (stuck, well)] == ["PROCESSING", "SUCCEED"]


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("fetch", faults.backwards()),
        ("fetch", faults.forget("unheard-of")),
        ("fetch", faults.stuck("unheard-of")),
        ("submit", faults.result_as("int")),
        ("submit", faults.code(22, accept=True)),
    ],
)
async def test_a_fault_that_finds_nothing_to_spoil_is_not_counted(agent: Agent, where: str, fault: Fault) -> None:
    task_id = await agent.imagine()
    agent.sim.inject(where, fault)
    if where == "fetch":
        assert await agent.standing(task_id) == ("QUEUED", 0, 0)
    else:
        assert (await agent.post("imagine", {})).json()["code"] == 4
    assert (agent.sim.fired, agent.sim.faults_left()) == ({}, 0)


async def test_half_an_empty_answer_is_no_fault(agent: Agent) -> None:
    agent.sim.inject("fetch", faults.half_body())
    assert (await agent.fetch("unheard-of")).content == b""
    assert agent.sim.fired == {}


async def test_a_picture_may_be_spoiled_too(agent: Agent) -> None:
    link = (await agent.links(await agent.grid()))[0]
    agent.sim.inject("picture", faults.half_body())
    with pytest.raises(httpx.RemoteProtocolError):
        await agent.http.get(link)
    assert (await agent.http.get(link)).content.startswith(PNG)
    assert agent.sim.fired == {"half_body": 1}


async def test_faults_are_met_in_order_the_narrowest_place_first(agent: Agent) -> None:
    agent.sim.inject("submit", faults.status(500))
    agent.sim.inject("imagine", faults.status(501), times=2)
    agent.sim.inject("imagine", faults.status(502))
    seen = [(await agent.post("imagine", {"prompt": "mug"})).status_code for _ in range(5)]
    assert seen == [501, 501, 502, 500, 200]
    with pytest.raises(ValueError, match="no request is of kind 'nowhere'"):
        agent.sim.inject("nowhere", faults.empty())


async def test_random_faults_repeat_with_their_seed(http: httpx.AsyncClient) -> None:
    async def run(seed: int) -> list[int]:
        async with Simulator(job_seconds=None) as sim:
            agent = Agent(sim, http)
            sim.seed_faults(seed, 0.5, "submit", [faults.status(500), faults.status(502, accept=True)])
            seen = [(await agent.post("imagine", {"prompt": "mug"})).status_code for _ in range(30)]
            assert [sim.fired["status_500"], sim.fired["status_502"]] == [seen.count(500), seen.count(502)]
            assert len(sim.ledger) == 30 - seen.count(500)
            sim.clear_faults()
            assert (await agent.post("imagine", {"prompt": "mug"})).status_code == 200
            return seen

    first, again, other = await run(1), await run(1), await run(2)
    assert first == again != other
    assert set(first) == {200, 500, 502}


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [("empty", 200, b""), ("null", 200, b"null"), ("{}", 200, b"{}"), ("204", 204, b""), ("404", 404, None)],
)
async def test_an_unknown_task_is_answered_as_the_relatives_do(
    agent: Agent, answer: Any, status: int, body: bytes | None
) -> None:
    agent.sim.unknown_answer = answer
    got = await agent.fetch("unheard-of")
    assert got.status_code == status
    assert body is None or got.content == body


async def test_a_restart_forgets_the_tasks_and_keeps_the_ledger(agent: Agent) -> None:
    task_id = await agent.grid()
    link = (await agent.links(task_id))[0]
    agent.sim.restart_forgetting()
    assert (await agent.fetch(task_id)).content == b""
    assert (await agent.http.get(link)).status_code == 404
    assert (await agent.post("simple-change", {"content": f"{task_id} R"})).json()["code"] == 3
    assert len(agent.sim.ledger) == 1


async def test_while_it_does_not_listen_connections_are_refused_and_then_work_on_the_same_port(agent: Agent) -> None:
    port = agent.sim.port
    task_id = await agent.imagine()
    await agent.sim.stop_listening()
    with pytest.raises(httpx.ConnectError):
        await agent.fetch(task_id)
    await agent.sim.start_listening()
    assert await agent.standing(task_id) == ("QUEUED", 0, 0)
    assert agent.sim.port == port


@pytest.mark.parametrize("abort", [False, True])
async def test_a_busy_connection_is_answered_or_reset_when_listening_stops(agent: Agent, abort: bool) -> None:
    agent.sim.inject("submit", faults.delay(0.1))
    busy = asyncio.create_task(agent.imagine())
    await agent.sim.until(lambda: len(agent.sim.ledger) == 1)
    await agent.sim.stop_listening(abort=abort)
    if abort:
        with pytest.raises(httpx.ReadError):
            await busy
    else:
        assert await busy == agent.sim.ledger[0].task_id


# --- the connection and the lifetime


async def test_a_connection_is_kept_and_used_again(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    for _ in range(2):
        writer.write(b"GET /mj/task/1/fetch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.write(b"nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()


async def test_a_client_may_ask_before_it_sends_its_body(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    head = "POST /mj/submit/imagine HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n"
    writer.write(head.format(2).encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b"{}")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
    writer.close()
    await writer.wait_closed()


async def test_a_body_beyond_a_megabyte_is_not_read(agent: Agent) -> None:
    try:
        answer = await agent.http.post(f"{agent.sim.url}/mj/submit/imagine", content=bytes(1_200_000), headers=BEARER)
    except httpx.TransportError:
        pass  # the answer was lost to the reset that unread bytes cause
    else:
        assert answer.status_code == 413
    assert agent.sim.requests == []


async def test_leaving_ends_what_hangs_and_drips(http: httpx.AsyncClient) -> None:
    async with Simulator(job_seconds=None) as sim:
        agent = Agent(sim, http)
        sim.inject("fetch", faults.hang())
        sim.inject("fetch", faults.delay(100))
        sim.inject("fetch", faults.drip_body(100))
        task_id = await agent.imagine()
        pending = [asyncio.create_task(agent.fetch(task_id)) for _ in range(3)]
        await sim.until(lambda: sim.fired.total() == 3)
        closed = asyncio.create_task(sim.wait_closed())
        await asyncio.sleep(0)
        assert not closed.done()
    ends = await asyncio.gather(*pending, return_exceptions=True)
    assert all(isinstance(end, httpx.TransportError) for end in ends)
    await closed


async def test_it_may_be_left_while_it_does_not_listen() -> None:
    async with Simulator() as sim:
        await sim.stop_listening()
        await sim.stop_listening()
    async with Simulator(port=sim.port) as again:
        assert again.port == sim.port


async def test_a_port_that_is_taken_is_an_error_at_the_start(sim: Simulator, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        async with Simulator(port=sim.port, ledger_path=tmp_path / "ledger"):
            pass


async def test_an_error_of_its_own_is_never_mistaken_for_a_fault(http: httpx.AsyncClient) -> None:
    def complain(charge: Charge) -> None:
        raise AssertionError("no row in the journal")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012  # the simulator raises when it is left
        async with Simulator(job_seconds=None, on_charge=complain) as sim:
            with pytest.raises(httpx.TransportError):
                await Agent(sim, http).imagine()
    assert [str(error) for error in caught.value.exceptions] == ["no row in the journal"]


async def test_it_writes_nothing_to_stdout_or_stderr(
    http: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    async with Simulator(job_seconds=None, image_edge=64) as sim:
        agent = Agent(sim, http)
        await http.get((await agent.links(await agent.grid()))[0])
    assert capfd.readouterr() == ("", "")


def test_it_imports_nothing_of_the_rest_of_the_house() -> None:
    found = set()
    for path in Path(mj_mcp.simulator.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found.add(f"{'.' * node.level}{node.module}")
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    ours = {name for name in found if name.startswith(("mj_mcp", "."))}
    assert all(name.startswith("mj_mcp.simulator") for name in ours)
    assert found & {"httpx", "mcp", "pydantic"} == set()
