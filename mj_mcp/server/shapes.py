"""The published shapes of the structured content, from which the tools' output schemas are made.

Owns field names and types. Says nothing and decides nothing.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class ImageView(BaseModel):
    """One picture."""

    index: int
    url: str
    media_type: str | None
    width: int | None
    height: int | None
    path: str | None


class FailureView(BaseModel):
    """Why it failed."""

    code: str
    message: str


class NextCall(BaseModel):
    """A call that makes sense now."""

    tool: str
    arguments: dict[str, Any]


class TaskView(BaseModel):
    """The structured content of every task tool. Dates are RFC 3339, UTC."""

    task_id: str | None
    submission_id: str
    kind: str | None
    status: str
    upstream_status: str | None
    progress: int | None
    prompt: str | None
    parent_id: str | None
    index: int | None
    images: list[ImageView]
    failure: FailureView | None
    warnings: list[str]
    duplicate_of_open_task: bool
    submitted_at: str | None
    updated_at: str
    finished_at: str | None
    eta_seconds: float | None
    next: list[NextCall]


class BriefTaskView(BaseModel):
    """What the schemas of the other tools name of the same content; `get_task` publishes it whole.

    Saying it nine times would cost every conversation thousands of tokens.
    """

    model_config = ConfigDict(extra="allow")

    task_id: str | None
    submission_id: str
    status: str
    images: list[dict[str, Any]]
    next: list[dict[str, Any]]


class PictureView(BaseModel):
    """The structured content of `view_image`."""

    task_id: str | None
    index: int
    media_type: str
    width: int
    height: int


class FileView(BaseModel):
    """One saved picture."""

    index: int
    path: str
    bytes: int
    sha256: str
    media_type: str


class FilesView(BaseModel):
    """The structured content of `save_images`."""

    task_id: str | None
    files: list[FileView]


class TaskListView(BaseModel):
    """The structured content of `list_tasks`."""

    tasks: list[BriefTaskView]
    next_cursor: str | None
