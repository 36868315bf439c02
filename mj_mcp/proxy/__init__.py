"""The Midjourney Proxy: submit and fetch.

Owns every request to the proxy. Knows nothing of the journal, of waiting or of MCP.
"""

from mj_mcp.proxy.client import Proxy
from mj_mcp.proxy.detection import Detection
from mj_mcp.proxy.orders import Blend, Change, Describe, Imagine, Order, Press
from mj_mcp.proxy.outcomes import Accepted, FetchResult, OutcomeUnknown, Refused, Trouble, Unknown
from mj_mcp.proxy.text import check_task_id

__all__ = [
    "Accepted",
    "Blend",
    "Change",
    "Describe",
    "Detection",
    "FetchResult",
    "Imagine",
    "Order",
    "OutcomeUnknown",
    "Press",
    "Proxy",
    "Refused",
    "Trouble",
    "Unknown",
    "check_task_id",
]
