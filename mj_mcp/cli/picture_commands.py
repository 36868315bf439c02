"""The commands that cost money: imagine, upscale, vary, reroll, describe, blend. The same rules as the tools.

Owns their words. How a purchase runs and ends is in `purchases.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mj_mcp.cli.purchases import EXIT_CODES, buy, end, print_pictures, with_options
from mj_mcp.tasks import Kind, Task

if TYPE_CHECKING:
    from mj_mcp.settings import Settings
    from mj_mcp.studio import Call, Result, Studio

INDEX = click.argument("index", type=click.IntRange(1, 4))


@click.command(epilog=EXIT_CODES)
@click.argument("prompt")
@click.option("--image", "images", multiple=True, help="A picture to start from: a URL, a file, or TASK_ID#1.")
@click.option("--style", "styles", multiple=True, help="A style reference: a URL, TASK_ID#1, a code or random.")
@click.option("--omni", help="A subject to put in: a URL or TASK_ID#1.")
@click.option("--allow-multiple", is_flag=True, help="Allow --repeat and {a, b} in PROMPT, which multiply the cost.")
@with_options
def imagine(  # noqa: PLR0917 - click passes them by name
    prompt: str,
    images: tuple[str, ...],
    styles: tuple[str, ...],
    omni: str | None,
    allow_multiple: bool,
    wait: float,
    as_json: bool,
    allow_duplicate: bool,
) -> None:
    """Draw a grid of pictures from PROMPT. Costs money.

    Midjourney's flags stand in the prompt: mj-mcp imagine "a red mug --ar 3:2 --v 7". They are checked before anything
    is submitted.
    """

    async def draw(studio: Studio, call: Call, settings: Settings) -> Result:
        from mj_mcp.studio import Options, Purchase  # noqa: PLC0415 - the settings are checked first

        options = Options(image_urls=images, style_reference=styles, omni_reference=omni)
        purchase = Purchase(
            allow_duplicate=allow_duplicate, allow_multiple=allow_multiple, extra_flags=settings.extra_flags
        )
        return await studio.wait(call, await studio.imagine(call, prompt, options, purchase))

    _print(buy(draw, wait, as_json=as_json), wait, as_json=as_json)


@click.command(epilog=EXIT_CODES)
@click.argument("task_id")
@INDEX
@with_options
def upscale(task_id: str, index: int, wait: float, as_json: bool, allow_duplicate: bool) -> None:
    """Make the picture INDEX of a finished grid large. Costs money."""
    _change(Kind.UPSCALE, task_id, index, wait, as_json=as_json, allow_duplicate=allow_duplicate)


@click.command(epilog=EXIT_CODES)
@click.argument("task_id")
@INDEX
@with_options
def vary(task_id: str, index: int, wait: float, as_json: bool, allow_duplicate: bool) -> None:
    """Draw a new grid like the picture INDEX of a finished one. Costs money."""
    _change(Kind.VARIATION, task_id, index, wait, as_json=as_json, allow_duplicate=allow_duplicate)


@click.command(epilog=EXIT_CODES)
@click.argument("task_id")
@with_options
def reroll(task_id: str, wait: float, as_json: bool, allow_duplicate: bool) -> None:
    """Draw a new grid from a finished task's prompt. Costs money."""
    _change(Kind.REROLL, task_id, None, wait, as_json=as_json, allow_duplicate=allow_duplicate)


@click.command(epilog=EXIT_CODES)
@click.argument("picture")
@with_options
def describe(picture: str, wait: float, as_json: bool, allow_duplicate: bool) -> None:
    """Print four prompts that describe PICTURE: a file, or a picture of a task (TASK_ID#1). Costs money."""

    async def described(studio: Studio, _call: Call, _settings: Settings) -> Result:
        return await studio.by_hand.describe(picture, wait, allow_duplicate=allow_duplicate)

    task = buy(described, wait, as_json=as_json)
    if not end(task, wait, as_json=as_json):
        print(task.prompt)


@click.command(epilog=EXIT_CODES)
@click.argument("pictures", nargs=-1, required=True)
@with_options
def blend(pictures: tuple[str, ...], wait: float, as_json: bool, allow_duplicate: bool) -> None:
    """Draw a grid from two to five PICTURES: files, or pictures of tasks (TASK_ID#1). Costs money."""
    if not 2 <= len(pictures) <= 5:
        raise click.UsageError("give 2 to 5 pictures")

    async def blended(studio: Studio, _call: Call, _settings: Settings) -> Result:
        return await studio.by_hand.blend(pictures, wait, allow_duplicate=allow_duplicate)

    _print(buy(blended, wait, as_json=as_json), wait, as_json=as_json)


def _change(kind: Kind, task_id: str, index: int | None, wait: float, *, as_json: bool, allow_duplicate: bool) -> None:
    async def changed(studio: Studio, call: Call, _settings: Settings) -> Result:
        from mj_mcp.studio import Purchase  # noqa: PLC0415 - the settings are checked first

        purchase = Purchase(allow_duplicate=allow_duplicate)
        return await studio.wait(call, await studio.change(call, kind, task_id, index, purchase))

    _print(buy(changed, wait, as_json=as_json), wait, as_json=as_json)


def _print(task: Task, wait: float, *, as_json: bool) -> None:
    if not end(task, wait, as_json=as_json):
        print_pictures(task)
