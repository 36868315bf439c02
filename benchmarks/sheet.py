"""What seeing costs: time and bytes of the contact sheet, and memory when a hostile host answers.

    python benchmarks/sheet.py [--quick]

Prints one line per figure with its target; exits with 1 when one is missed. Only loopback is ever connected to.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import io
import os
import random
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

MIB = 2**20
SHEET_MS, SHEET_KIB, GROWTH_MIB = 600, 200, 96
DRIP_SECONDS = 2.0

T = TypeVar("T")


def pictures(kind: str) -> list[bytes]:
    """Four 1024 px PNGs, none like another."""
    from PIL import Image, ImageFilter  # noqa: PLC0415 - the children that are measured import it themselves

    made = []
    for seed in range(4):
        luck = random.Random(seed)
        image = Image.frombytes("RGB", (1024, 1024), luck.randbytes(3 * 1024 * 1024))
        if kind == "painted":
            small = Image.frombytes("RGB", (24, 24), luck.randbytes(3 * 24 * 24)).resize((1024, 1024), 3)
            image = Image.blend(small, image.filter(ImageFilter.GaussianBlur(1)), 0.2)
        out = io.BytesIO()
        image.save(out, "PNG")
        made.append(out.getvalue())
    return made


def grid_of(four: list[bytes]) -> bytes:
    """The four as one 2x2 PNG of 2048 px."""
    from PIL import Image  # noqa: PLC0415 - see above

    whole = Image.new("RGB", (2048, 2048))
    for number, one in enumerate(four):
        whole.paste(Image.open(io.BytesIO(one)), (number % 2 * 1024, number // 2 * 1024))
    out = io.BytesIO()
    whole.save(out, "PNG")
    return out.getvalue()


def measure_sheet(rounds: int, *, strict: bool) -> bool:
    """Median and worst time of the sheet, after a first one that pays for the imports; time fails when `strict`."""
    from mj_mcp.pictures import contact_sheet, inspect, tile  # noqa: PLC0415 - see above

    good = True
    for kind in ("painted", "noise"):
        four = pictures(kind)

        def sheet(four: list[bytes] = four) -> bytes:
            return contact_sheet([tile(one, 4) for one in four]).data

        def read(four: list[bytes] = four) -> None:
            for one in four:
                inspect(one)

        first, data = timed(sheet)
        times = [timed(sheet)[0] for _ in range(rounds)]
        reads = [timed(read)[0] for _ in range(rounds)]
        good &= report(
            f"sheet of four 1024 px PNGs ({kind})",
            times,
            len(data),
            f"first {first:.0f} ms; inspecting all four {statistics.median(reads):.0f} ms",
            strict=strict,
        )
        good &= asyncio.run(measure_grid(kind, four, rounds, strict=strict))
    return good


async def measure_grid(kind: str, four: list[bytes], rounds: int, *, strict: bool) -> bool:
    """From bytes to originals that can be archived and their sheet, on the threads of the product: grid and links."""
    from mj_mcp.pictures import PictureWorkers  # noqa: PLC0415 - see above

    grid = grid_of(four)
    times: dict[str, list[float]] = {"links": [], "grid": [], "cut": []}
    size = 0
    async with PictureWorkers() as workers:

        async def sheet(four: Sequence[bytes]) -> int:
            tiles = await asyncio.gather(*(workers.tile(one, 4) for one in four))
            return len((await workers.contact_sheet(tiles)).data)

        for _ in range(rounds):
            started = time.perf_counter()
            await asyncio.gather(*(workers.inspect(one) for one in four))
            size = await sheet(four)
            linked = time.perf_counter()
            parts = await workers.cut(grid)
            cut = time.perf_counter()
            size = max(size, await sheet([part.data for part in parts]))
            times["links"].append((linked - started) * 1000)
            times["cut"].append((cut - linked) * 1000)
            times["grid"].append((time.perf_counter() - linked) * 1000)
    besides = f"cutting {statistics.median(times['cut']):.0f} ms of it"
    good = report(f"one 2048 px grid, cut, and its sheet ({kind})", times["grid"], size, besides, strict=strict)
    links = f"four 1024 px PNGs, inspected, and their sheet ({kind})"
    return report(links, times["links"], size, "the peer", strict=strict) and good


def report(what: str, times: list[float], size: int, besides: str, *, strict: bool) -> bool:
    """Print one line of times in milliseconds; whether it is within its targets."""
    middle = statistics.median(times)
    small = size <= SHEET_KIB * 1024
    passed = middle < SHEET_MS and small
    print(
        f"{'ok ' if passed else 'BAD'} {what}: median {middle:.0f} ms, worst {max(times):.0f} ms (target {SHEET_MS}); "
        f"{size / 1024:.0f} KiB (target {SHEET_KIB}); {besides}"
    )
    return passed or (small and not strict)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """How long it takes, in milliseconds, and what it gives."""
    started = time.perf_counter()
    done = work()
    return (time.perf_counter() - started) * 1000, done


# ---------------------------------------------------------------- bombs, served on loopback

Write = Callable[[bytes], Awaitable[None]]


def head(*lines: str) -> bytes:
    """The start of an answer."""
    return "\r\n".join(("HTTP/1.1 200 OK", "Content-Type: image/png", *lines)).encode() + b"\r\n\r\n"


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG with a true header and whatever pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


ZEROS = zlib.compress(bytes(500 * MIB), 1) if "--child" not in sys.argv else b""
"""Half a gigabyte, packed before any clock runs: a bomb that comes too late proves nothing."""


async def stream(write: Write) -> None:
    """200 MiB that were not announced."""
    await write(head("Transfer-Encoding: chunked"))
    for _ in range(200):
        await write(b"100000\r\n" + bytes(MIB) + b"\r\n")


async def announced(write: Write) -> None:
    """200 MiB that were."""
    await write(head(f"Content-Length: {200 * MIB}"))
    for _ in range(200):
        await write(bytes(MIB))


async def pixels(write: Write) -> None:
    """60,000 x 60,000 pixels in half a megabyte."""
    body = png(60_000, 60_000, ZEROS)
    await write(head(f"Content-Length: {len(body)}") + body)


async def gzip_bomb(write: Write) -> None:
    """500 MiB of zeros as a content encoding."""
    body = gzip.compress(bytes(64 * MIB), 1) * 8
    await write(head("Content-Encoding: gzip", f"Content-Length: {len(body)}") + body)


async def text_bomb(write: Write) -> None:
    """A small PNG with 500 MiB of compressed text in it."""
    whole = png(8, 8, zlib.compress(bytes(25 * 8)))
    text = b"zTXt" + b"k\0\0" + ZEROS
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    body = whole[:33] + chunk + whole[33:]
    await write(head(f"Content-Length: {len(body)}") + body)


async def drip(write: Write) -> None:
    """A byte now and then."""
    await write(head("Content-Length: 1000000"))
    while True:
        await write(b"x")
        await asyncio.sleep(0.05)


async def truncated(write: Write) -> None:
    """Half of a large PNG, announced as whole."""
    luck = random.Random(1)
    rows = b"".join(b"\0" + luck.randbytes(3 * 2000) for _ in range(1000))
    body = png(2000, 2000, zlib.compress(rows, 1))
    body = body[: len(body) // 2]
    await write(head(f"Content-Length: {len(body)}") + body)


BOMBS = {one.__name__: one for one in (stream, announced, pixels, gzip_bomb, text_bomb, drip, truncated)}


def peak_kib(reset: bool = False) -> int:
    """The most memory this process has held so far, or since the last reset."""
    if Path("/proc/self/status").exists():
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


async def child(url: str) -> None:
    """Warm up on an honest picture, then take the bomb; prints growth in KiB, seconds, and what was said."""
    from mj_mcp.errors import ImageUnavailable  # noqa: PLC0415 - measured in a process of its own
    from mj_mcp.pictures import PictureClient, PictureWorkers  # noqa: PLC0415 - same

    async with PictureClient(url, stall_seconds=DRIP_SECONDS) as client, PictureWorkers() as workers:
        honest = png(1024, 1024, zlib.compress(bytes((1 + 3 * 1024) * 1024)))
        await workers.contact_sheet([await workers.tile(honest, 4)] * 4)
        await workers.inspect(honest)
        before = peak_kib(reset=True)
        started = time.perf_counter()
        try:
            data = await client.fetch(url)
            await workers.inspect(data)
            said = "was taken for a picture"
        except ImageUnavailable as error:
            said = error.message
        print(peak_kib() - before, round(time.perf_counter() - started, 2), said, sep="\t")


async def measure_bomb(name: str) -> bool:
    """Serve one bomb on loopback to a process of its own."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            await reader.readuntil(b"\r\n\r\n")
            await BOMBS[name](write)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has had enough, or the server is closed
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--child", url, stdout=subprocess.PIPE, env={**os.environ}
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    growth, seconds, said = out.decode().strip().split("\t")
    arrived = ("did not arrive" in said) is (name == "drip")
    passed = int(growth) < GROWTH_MIB * 1024 and "taken" not in said and arrived
    print(f"{'ok ' if passed else 'BAD'} {name:10} grew {int(growth) / 1024:5.1f} MiB in {seconds} s: {said}")
    return passed


def main() -> int:
    """Everything, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI; time is printed only")
    parser.add_argument("--child", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        asyncio.run(child(options.child))
        return 0
    good = measure_sheet(1 if options.quick else 20, strict=not options.quick)
    for name in BOMBS:
        good &= asyncio.run(measure_bomb(name))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
