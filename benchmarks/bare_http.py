"""A bare `MCPServer` with one tool over streamable HTTP, as the SDK serves it. What we are measured by."""

from __future__ import annotations

import sys

from bare import server

if __name__ == "__main__":
    server.settings.log_level = "ERROR"  # a line per request would count against it
    server.run("streamable-http", port=int(sys.argv[1]))
