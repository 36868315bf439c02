"""The journal's tables in SQLite, as an ordered list of named migrations. Owns names and indexes, runs nothing."""

from __future__ import annotations

from mj_mcp.tasks import OPEN, Status


def any_of(statuses: frozenset[Status]) -> str:
    """These statuses as the right side of an SQL `IN`."""
    return "(" + ", ".join(f"'{status}'" for status in sorted(statuses)) + ")"


MIGRATIONS: list[tuple[str, str]] = [
    (
        "0001_tasks",
        f"""
        CREATE TABLE tasks (
            number        INTEGER PRIMARY KEY AUTOINCREMENT,
            account       TEXT NOT NULL,
            owner         TEXT NOT NULL,
            submission_id TEXT NOT NULL UNIQUE,
            task_id       TEXT,
            kind          TEXT,
            status        TEXT NOT NULL,
            request_key   TEXT,
            claim         TEXT,
            submitted_at  REAL,
            finished_at   REAL,
            holder        TEXT,
            lease_until   REAL,
            seq           INTEGER NOT NULL,
            writer        TEXT NOT NULL,
            body          TEXT NOT NULL
        );
        CREATE INDEX tasks_task_id ON tasks (account, task_id) WHERE task_id IS NOT NULL;
        CREATE UNIQUE INDEX tasks_claim ON tasks (account, claim) WHERE claim IS NOT NULL AND status IN {any_of(OPEN)};
        CREATE INDEX tasks_open ON tasks (account, request_key) WHERE status IN {any_of(OPEN)};
        CREATE INDEX tasks_owner ON tasks (account, owner, number);
        CREATE INDEX tasks_status ON tasks (account, owner, status, number);
        CREATE INDEX tasks_finished ON tasks (account, kind, finished_at) WHERE finished_at IS NOT NULL;
        CREATE INDEX tasks_submitted ON tasks (account, submitted_at);
        CREATE INDEX tasks_seq ON tasks (seq);
        """,
    ),
    (
        "0002_waiting",
        """
        CREATE TABLE waiting (
            number        INTEGER PRIMARY KEY AUTOINCREMENT,
            account       TEXT NOT NULL,
            owner         TEXT NOT NULL,
            submission_id TEXT NOT NULL UNIQUE,
            seen_at       REAL NOT NULL
        );
        CREATE INDEX waiting_account ON waiting (account, number);
        """,
    ),
    (
        "0003_cuts",
        """
        CREATE TABLE cuts (
            number        INTEGER PRIMARY KEY AUTOINCREMENT,
            account       TEXT NOT NULL,
            owner         TEXT NOT NULL,
            host          TEXT NOT NULL,
            seconds       REAL NOT NULL,
            at            REAL NOT NULL
        );
        CREATE INDEX cuts_host ON cuts (account, owner, host, number);
        """,
    ),
]
"""Applied in order, each once. A name is never reused; a journal with a name we do not know is newer than we are."""
