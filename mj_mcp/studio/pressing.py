"""What is checked before a button is pressed.

Owns what a label and the prompt of a dialog may be. Which buttons there are only the proxy knows.
"""

from __future__ import annotations

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import Compiled, compile_prompt
from mj_mcp.studio.result import Purchase

MOST_LABEL_CHARACTERS = 60

OF_A_DIALOG = frozenset({"zoom", "video", "motion", "loop", "end", "bs"})
"""Flags that a dialog's prompt may have and no other: those of a custom zoom and of videos."""


def check_press(button: str, prompt: str | None, purchase: Purchase) -> Compiled | None:
    """The prompt as it is sent; None without one. Its flags are checked as those of any prompt.

    Raises:
        InvalidRequest: names every problem of the two.
    """
    problems: tuple[str, ...] = ()
    if not button.strip() or len(button) > MOST_LABEL_CHARACTERS:
        allowed = f"the label of a button, 1 to {MOST_LABEL_CHARACTERS} characters; get_task lists them in `buttons`"
        problems = InvalidRequest("button", button, allowed).problems
    compiled = None
    if prompt is not None:
        try:
            compiled = compile_prompt(prompt, extra_flags=purchase.extra_flags | OF_A_DIALOG)
        except InvalidRequest as failure:
            problems += failure.problems
    if problems:
        raise InvalidRequest.because(*problems)
    return compiled
