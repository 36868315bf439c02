"""The warnings of a task and of one call, in words."""

from __future__ import annotations

from mj_mcp.studio import Result
from mj_mcp.tasks import WarningCode

WARNING_WORDS: dict[str, str] = {
    WarningCode.QUEUED_BEHIND: "queued behind {} other jobs",
    WarningCode.EXISTED: "the proxy says that this task existed already",
    WarningCode.IDLE: "nothing has moved for {} minutes",
    WarningCode.UNKNOWN: "the proxy does not know this task; it may have forgotten it",
    WarningCode.UNREAD: "the journal does not answer: this is the last state that this server knows",
    WarningCode.LINKS_UNUSABLE: "{} of {} picture links were unusable",
    WarningCode.NO_PICTURES: "the proxy reports success, but lists no picture",
    WarningCode.PROMPT_UNUSED: "this button asks for no prompt: the one that was given was not used",
}
GIVEN_UP = "it is not polled automatically any more; get_task polls it again"


def warnings_of(result: Result) -> list[str]:
    """The task's warnings, then the call's."""
    said = [worded(warning) for warning in result.task.warnings]
    if result.task.given_up_at is not None:
        said.append(GIVEN_UP)
    if result.trouble is not None:
        failed, last = result.trouble
        said.append(f"the last {failed} polls of the proxy failed: {last.message}")
    return [*said, *result.notes, *(result.shown.missing if result.shown else ())]


def worded(warning: str) -> str:
    """A stored warning in words. A sentence, as in rows of older versions, is returned unchanged."""
    code, *numbers = warning.split(":")
    words = WARNING_WORDS.get(code, "")
    return words.format(*numbers) if words and words.count("{}") == len(numbers) else warning
