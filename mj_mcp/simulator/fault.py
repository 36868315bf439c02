"""What a fault is, and the script that decides which request gets which fault.

Owns how a fault changes an answer, and the queues. Knows nothing of tasks or sockets: a fault says what shall happen,
and the simulator and the listener do it.

`accept` says whether the request still takes effect: for a submit, whether a job is created and charged although the
answer is wrong.
"""

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from mj_mcp.simulator.listener import Reply, Way

Edit = Callable[[dict[str, Any]], dict[str, Any] | None]

TARGETS: Final = frozenset(
    {
        "submit",
        "fetch",
        "picture",
        "list",
        "cancel",
        "imagine",
        "change",
        "simple-change",
        "action",
        "modal",
        "describe",
        "blend",
        "shorten",
        "diffusion",
        "upscale",
        "variation",
        "reroll",
    }
)
"""What a fault may be queued for: "submit" is every submit, the last twelve are one kind each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request.

    Attributes:
        name: What `Simulator.fired` counts.
        accept: Whether the request takes effect.
        delay: Seconds of silence, before the request takes effect when `delay_first`, else after.
        until: The answer to a request that took effect waits for this.
        way: How the reply leaves; `pace` is the seconds between two bytes of a drip.
        reply: Replaces the answer.
        edit: Changes the JSON object of the answer; None when this answer offers nothing to change.
        http_status: Replaces the status of the answer.
        effect: What happens to the task before the poll is answered; `task_id` when it is another than the one asked.
    """

    name: str
    accept: bool = True
    delay: float = 0.0
    delay_first: bool = False
    until: asyncio.Event | None = None
    way: Way = "whole"
    pace: float = 0.0
    reply: Reply | None = None
    edit: Edit | None = field(default=None, repr=False, compare=False)
    http_status: int | None = None
    effect: Literal["forget", "stuck"] | None = None
    task_id: str | None = None

    def applied(self, reply: Reply) -> Reply | None:
        """Return the answer changed by this fault; None if there is nothing that it can change."""
        if self.reply is not None:
            reply = self.reply
        if self.edit is not None:
            edited = _edited(reply, self.edit)
            if edited is None:
                return None
            reply = edited
        if self.way in ("half", "drip") and not reply.body:
            return None
        reply = replace(reply, status=self.http_status or reply.status)
        return reply if self.way == "whole" else replace(reply, way=self.way, pace=self.pace)


def _edited(reply: Reply, edit: Edit) -> Reply | None:
    if not isinstance(reply.body, bytes) or not reply.body:
        return None
    answer = json.loads(reply.body)
    changed = edit(answer) if isinstance(answer, dict) else None
    return None if changed is None else replace(reply, body=json.dumps(changed).encode())


class Script:
    """Decides which fault the next request gets: first the injected ones in order, then random ones."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Fault]] = {target: deque() for target in TARGETS}
        self._dice: dict[str, tuple[random.Random, float, tuple[Fault, ...]]] = {}

    def inject(self, where: str, fault: Fault, times: int) -> None:
        """Queue a fault for the next `times` requests of this kind. Raises ValueError for an unknown kind."""
        self._queues[_checked(where)].extend([fault] * times)

    def seed(self, seed: int, rate: float, where: Sequence[str], choices: Sequence[Fault]) -> None:
        """Choose faults for requests of these kinds at random; a rate of 0 stops that."""
        for target in where:
            dice = random.Random(f"{seed}/{target}")  # noqa: S311  # repeatable, no secret
            self._dice[_checked(target)] = (dice, rate, tuple(choices))

    def clear(self) -> None:
        """Remove queued and random faults."""
        for queue in self._queues.values():
            queue.clear()
        self._dice.clear()

    def left(self) -> int:
        """Count the injected faults that no request has got yet."""
        return sum(map(len, self._queues.values()))

    def next(self, targets: Sequence[str]) -> Fault | None:
        """Return the fault for a request that matches all of these kinds, the most specific first."""
        for target in targets:
            if self._queues[target]:
                return self._queues[target].popleft()
        for target in targets:
            dice, rate, choices = self._dice.get(target, (None, 0.0, ()))
            if dice is not None and dice.random() < rate:
                return dice.choice(choices)
        return None


def _checked(where: str) -> str:
    if where not in TARGETS:
        raise ValueError(f"no request is of kind {where!r}; they are {', '.join(sorted(TARGETS))}")
    return where
