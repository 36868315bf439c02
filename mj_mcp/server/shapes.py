"""The published shapes of the structured content. The tools' output schemas are made from them.

Owns field names and types. A field without a value is left out, never null: `None` here means "may be missing".
Decides nothing.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ImageView(BaseModel):
    """One picture."""

    index: int
    url: str
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    path: str | None = None


class FailureView(BaseModel):
    """Why it failed."""

    code: str
    message: str


class NextCall(BaseModel):
    """A call that makes sense now."""

    tool: str
    arguments: dict[str, Any]


class BriefTaskView(BaseModel):
    """What the tools that spend name of a task in their schemas. `get_task` publishes all fields.

    Repeating them six times would cost every conversation thousands of tokens.
    """

    message: str
    task_id: str | None = None
    status: str


class TaskView(BaseModel):
    """The structured content of every tool that returns one task. Dates are RFC 3339, UTC."""

    message: str
    task_id: str | None = None
    submission_id: str
    kind: str | None = None
    status: str
    upstream_status: str | None = None
    progress: int | None = None
    prompt: str | None = None
    parent_id: str | None = None
    index: int | None = None
    button: str | None = None
    buttons: list[str] | None = None
    images: list[ImageView]
    failure: FailureView | None = None
    warnings: list[str]
    duplicate_of: str | None = None
    duplicate_of_open_task: bool | None = None
    submitted_at: str | None = None
    updated_at: str | None = None
    finished_at: str | None = None
    eta_seconds: float | None = None
    next: list[NextCall]


class TaskRow(BaseModel):
    """A task in a list. If the proxy has not named it yet, it has a `submission_id` instead of a `task_id`."""

    task_id: str | None = None
    submission_id: str | None = None
    kind: str | None = None
    status: str
    prompt: str | None = None
    parent_id: str | None = None
    index: int | None = None
    image_count: int
    submitted_at: str | None = None
    finished_at: str | None = None
    eta_seconds: float | None = None


class TaskListView(BaseModel):
    """The structured content of `list_tasks`, and the resource `mj://tasks`."""

    message: str
    tasks: list[TaskRow]
    next_cursor: str | None = None


class WaitView(BaseModel):
    """The structured content of `wait_for_tasks`: rows as in `list_tasks`, with `failure` if there is one."""

    message: str
    tasks: list[dict[str, Any]]
    open: list[str]
    next: list[NextCall]


class FileView(BaseModel):
    """One saved picture."""

    index: int
    path: str
    bytes: int
    sha256: str
    media_type: str


class FilesView(BaseModel):
    """The structured content of `save_images`."""

    message: str
    task_id: str | None = None
    files: list[FileView]


class LimitsView(BaseModel):
    """What is left of the limits. A number without a limit is left out."""

    open_left: int | None = None
    today_left: int | None = None
    resets_at: str


class UsageView(BaseModel):
    """The structured content of `get_usage`: jobs by kind and `total`, days in UTC."""

    message: str
    today: dict[str, int]
    last_7_days: dict[str, int]
    open: int
    waiting: int
    limits: LimitsView
