"""Every dialect that this program speaks. A new one is a module beside this one, and a line here.

Owns the list, and how a task is read whatever its shape: a wrong guess of the dialect costs nothing.
"""

from __future__ import annotations

from mj_mcp.proxy.dialects import Dialect
from mj_mcp.proxy.dialects.flat import CLASSIC, NEWAPI, PLUS
from mj_mcp.proxy.dialects.gateway import GATEWAY
from mj_mcp.proxy.dialects.job import JOB
from mj_mcp.proxy.http import Answer, Fields
from mj_mcp.proxy.text import Redact
from mj_mcp.tasks import Observation

DIALECTS = {dialect.name: dialect for dialect in (GATEWAY, CLASSIC, PLUS, NEWAPI, JOB)}
"""By the value of `MJ_PROXY_DIALECT`."""

_READERS = tuple(dict.fromkeys(dialect.read_task for dialect in DIALECTS.values()))


def read_task(fields: Fields, redact: Redact, origin: str) -> Observation | None:
    """The task of a fetch answer, in the shape of whichever dialect; None where it has no task."""
    found = (read(fields, redact, origin) for read in _READERS)
    return next((one for one in found if one is not None), None)


def dialect_of(answer: Answer) -> Dialect:
    """Whose answer this is to the fetch of a task that cannot exist. The gateway's may look like anything."""
    telling = (dialect for dialect in DIALECTS.values() if dialect.is_unknown and dialect.is_unknown(answer))
    return next(telling, GATEWAY)
