"""The instructions that a model gets before its first call."""

from __future__ import annotations

CANNOT = (
    "Not possible here: cancelling a job, inpainting a region, describing or blending pictures. "
    "Zoom, pan and video are press_button, where the proxy offers buttons."
)
"""What agents ask for and no tool does. Also part of the answer to an unknown tool."""

_INSTRUCTIONS = """\
Midjourney pictures. Each generate_image, upscale_image, vary_image, reroll, simple_change and press_button costs \
the person money and takes 30 to 180 seconds.
- A call may return before the picture is done, with a task_id: call get_task with that id and wait_seconds, again and \
again, until its status is succeeded or failed. Never submit the same request again to get a result.
- Several pictures at once: submit each with wait_seconds=0, then call wait_for_tasks with all the ids.
- A result shows the pictures on one sheet, numbered. view_image shows one of them large, or pictures of several tasks \
side by side; {originals}.
- A grid has pictures numbered 1 to 4 (left to right, top to bottom). Ask the person which one they mean, or choose, \
and pass it as index to upscale_image (one large picture) or vary_image (four similar ones). reroll makes a new grid. \
To start from a picture made here, pass "TASK_ID#INDEX" in image_urls or style_reference of generate_image.
- status unconfirmed means that the submit may have been charged. Do not repeat it: tell the person, who can check the \
proxy's records.
- Every result lists in `next` the calls that make sense now.
- {cannot}"""


def instructions(*, saves: bool) -> str:
    """The instructions. `saves`: the server saves files that the person can reach."""
    kept = (
        "save_images saves the originals and returns their paths"
        if saves
        else "the person opens the originals by their links"
    )
    return _INSTRUCTIONS.format(originals=kept, cannot=CANNOT)
