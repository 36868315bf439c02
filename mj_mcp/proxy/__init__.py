"""The Midjourney Proxy: submit and fetch.

Owns every request to the proxy. Knows nothing of the journal, of waiting or of MCP.
"""

from mj_mcp.proxy.client import Proxy
from mj_mcp.proxy.dialects.gateway import Submit, change, imagine, simple_change
from mj_mcp.proxy.outcomes import Accepted, FetchResult, OutcomeUnknown, Refused, Trouble, Unknown
from mj_mcp.proxy.text import check_task_id

__all__ = [
    "Accepted",
    "FetchResult",
    "OutcomeUnknown",
    "Proxy",
    "Refused",
    "Submit",
    "Trouble",
    "Unknown",
    "change",
    "check_task_id",
    "imagine",
    "simple_change",
]
