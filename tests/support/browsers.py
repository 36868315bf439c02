"""A real Chromium, and in it a real host of the view: the protocol's own `AppBridge` in a page of ours.

A plugin of pytest: its fixtures are there for every test. What they need is installed by `make views-install`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Caller

from mj_mcp.server.views import VIEW_URI

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Frame, Locator, Page, Route

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / ".venv" / "views"
HOST, SANDBOX = "http://host.localhost", "http://sandbox.localhost"
"""Two origins, as the specification asks for. No server listens there: the pages are given to the browser directly."""

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]
"""The last one: no other address is looked up, not even for a page that asks to be connected in advance."""

EVERYTHING: dict[str, Any] = {
    "serverTools": {},
    "openLinks": {},
    "downloadFile": {},
    "message": {"text": {}},
    "updateModelContext": {"text": {}, "structuredContent": {}},
}
"""What a host can do that can do all that the view asks for."""

PATIENCE = 30_000
"""Milliseconds. What takes longer on however busy a machine is a defect."""


def chromium() -> Path:
    """The browser's program. The gate fails without it; elsewhere the test is skipped."""
    found = INSTALLED / "chromium/usr/lib/chromium/chromium-headless-shell"
    if (INSTALLED / ".done").exists() and found.exists():
        return found
    why = "the browser is missing: `make views-install` installs it (Debian's chromium, and npm packages)"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def _environment(program: Path) -> dict[str, str | float | bool]:
    """The libraries and fonts that came with it, for a machine that has none."""
    root = program.parents[3]
    libraries = [*root.glob("usr/lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu/pulseaudio")]
    fonts = {} if Path("/etc/fonts/fonts.conf").exists() else {"FONTCONFIG_PATH": str(root / "etc/fonts")}
    return {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "XDG_DATA_HOME": str(root / "usr/share"),
        **fonts,
    }


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser with a profile of its own."""
    program = chromium()
    from playwright.async_api import async_playwright  # noqa: PLC0415 - only these tests pay for it

    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=program,
            args=SWITCHES,
            env={**_environment(program), "HOME": str(tmp_path)},
        )
        yield launched
        await launched.close()


class View:
    """The view in a host: what a person sees and presses, and what the host was told."""

    def __init__(self, page: Page, frame: Frame, requests: list[str], console: list[str], shots: Path) -> None:
        self._shots = shots
        self.page = page
        self.frame = frame
        self.requests = requests
        self.console = console

    def button(self, name: str, *, exact: bool = True) -> Locator:
        """A button by its accessible name."""
        return self.frame.get_by_role("button", name=name, exact=exact)

    async def shows(self, text: str) -> None:
        """Wait until this text can be seen."""
        await self.frame.get_by_text(text).first.wait_for(timeout=PATIENCE)

    async def pictures(self, count: int) -> None:
        """Wait until this many tiles show their picture."""
        await self.frame.wait_for_function(
            "count => [...document.querySelectorAll('.tile img')].filter(i => i.naturalWidth > 0).length === count",
            arg=count,
            timeout=PATIENCE,
        )

    async def choose(self, index: int, of: int = 4) -> None:
        """Choose a picture."""
        await self.button(f"Picture {index} of {of}").click()

    async def now(self) -> float:
        """Milliseconds by the clock of the view."""
        return float(await self.frame.evaluate("performance.now()"))

    async def confirm(self, by: str = "Yes, pay for one job") -> None:
        """Pay. A press within half a second of the first would count as a double click, and do nothing."""
        await self.button(by).wait_for()
        await self.frame.wait_for_function("since => performance.now() - since > 500", arg=await self.now())
        await self.button(by).click()

    async def sent(self, kind: str) -> list[Any]:
        """What the view sent to the host: contexts, messages, links, downloads, sizes, calls, modes."""
        found: list[Any] = await self.page.evaluate("kind => window.sent[kind]", kind)
        return found

    async def calls(self, tool: str) -> list[Any]:
        """The arguments of its calls of this tool."""
        return [call["arguments"] for call in await self.sent("calls") if call["name"] == tool]

    async def tell(self, script: str, argument: Any = None) -> Any:
        """Run a script in the host page: `bridge` is its `AppBridge`."""
        return await self.page.evaluate(script, argument)

    async def shot(self, name: str) -> None:
        """A picture of the page for a person to look at, in the test's own folder."""
        await self.page.screenshot(path=self._shots / f"{name}.png")

    async def counters(self) -> dict[str, float]:
        """Nodes, listeners and bytes of the page and its frames, after a garbage collection."""
        session = await self.page.context.new_cdp_session(self.page)
        for _ in range(4):  # what one collection frees holds what the next one frees
            await session.send("HeapProfiler.collectGarbage")
        counted = await session.send("Memory.getDOMCounters")
        heap = await session.send("Runtime.getHeapUsage")
        return {**counted, "heap": heap["usedSize"]}

    async def violations(self) -> list[str]:
        """What axe-core finds."""
        return await axe(self.frame)


async def axe(frame: Frame) -> list[str]:
    """What axe-core finds in a frame, without the frames in it."""
    await frame.evaluate((INSTALLED / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    found = await frame.evaluate("axe.run(document, { iframes: false })")
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


Mount = Callable[..., AbstractAsyncContextManager[View]]

Instead = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]
"""What a host answers itself instead of passing a call on; None passes it on, `broken` is an error of the protocol."""


@pytest.fixture
def mount(browser: Browser, tmp_path: Path) -> Mount:
    """`async with mount(caller, "get_task", {"task_id": ...}) as view`: a tool is called, and the view beside it.

    `capabilities`, `context`, `width` and `height` are those of the host. Without `answered` the call has no answer;
    `result` replaces the answer, and `instead` answers calls of the view. Afterwards, nothing was asked of anybody but
    the host, and the console has no error.
    """

    @asynccontextmanager
    async def start(
        caller: Caller,
        tool: str = "get_task",
        arguments: dict[str, Any] | None = None,
        *,
        capabilities: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        width: int = 720,
        height: int | None = None,
        answered: bool = True,
        instead: Instead | None = None,
        result: dict[str, Any] | None = None,
        stopped_clock: bool = False,
        **options: Any,
    ) -> AsyncIterator[View]:
        (contents,) = (await caller.client.read_resource(VIEW_URI)).contents
        page_context = await browser.new_context(
            viewport={"width": width + 40, "height": height or 900}, **({"reduced_motion": "reduce"} | options)
        )
        requests, console = await _watch(page_context, (contents.meta or {})["ui"]["csp"])
        page = await page_context.new_page()
        if stopped_clock:
            await page.clock.install()
        page.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: console.append(f"error: {error}"))

        async def serve(name: str, given: dict[str, Any]) -> Any:
            if instead and (answer := await instead(name, given)) is not None:
                return answer
            return (await caller.call(name, **given)).model_dump(mode="json", by_alias=True, exclude_none=True)

        await page.expose_function("serverCall", serve)
        await page.goto(f"{HOST}/")
        shown = result or (await serve(tool, arguments or {}) if answered else None)
        given = {
            "html": getattr(contents, "text", ""),
            "csp": (contents.meta or {})["ui"]["csp"],
            "sandbox": f"{SANDBOX}/",
            "capabilities": EVERYTHING if capabilities is None else capabilities,
            "context": {"theme": "light", "displayMode": "inline"} | (context or {}),
            "input": arguments,
            "result": shown,
            "width": width,
            "height": height,
        }
        await page.evaluate("given => window.mount(given)", given)
        outer = next(frame for frame in page.frames if frame.url.startswith(SANDBOX))
        yield View(page, outer.child_frames[0], requests, console, tmp_path)
        await page_context.close()
        assert requests == []
        assert [line for line in console if line.startswith(("error", "warning"))] == []

    return start


async def _watch(context: BrowserContext, csp: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """Give the browser its two pages; every other request is recorded and refused."""
    requests: list[str] = []
    pages = {
        f"{HOST}/": ("<!doctype html><title>host</title><body><script src='/host.js'></script>", "text/html"),
        f"{HOST}/host.js": ((INSTALLED / "host.bundle.js").read_text(encoding="utf-8"), "text/javascript"),
        f"{SANDBOX}/": ((ROOT / "tests/views/sandbox.html").read_text(encoding="utf-8"), "text/html"),
    }

    async def answer(route: Route) -> None:
        url = route.request.url
        if url not in pages:
            requests.append(url)
            await route.abort()
            return
        body, kind = pages[url]
        policy = {"Content-Security-Policy": specified_policy(csp)} if url.startswith(SANDBOX) else {}
        await route.fulfill(body=body, content_type=f"{kind}; charset=utf-8", headers=policy)

    await context.route("**/*", answer)
    return requests, []


def specified_policy(csp: dict[str, list[str]]) -> str:
    """The Content-Security-Policy that the specification makes of what a view declares."""
    named = " ".join(csp["resourceDomains"])
    sources = {
        "default-src": "'none'",
        "script-src": f"'self' 'unsafe-inline' {named}",
        "style-src": f"'self' 'unsafe-inline' {named}",
        "img-src": f"'self' data: {named}",
        "font-src": f"'self' {named}",
        "media-src": f"'self' data: {named}",
        "connect-src": " ".join(csp["connectDomains"]) or "'none'",
        "frame-src": " ".join(csp["frameDomains"]) or "'self'",  # the sandbox's own frame is the view
        "object-src": "'none'",
        "base-uri": " ".join(csp["baseUriDomains"]) or "'self'",
    }
    return "; ".join(f"{name} {value}".strip() for name, value in sources.items())
