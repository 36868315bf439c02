"""An MCP server that makes Midjourney pictures through a Midjourney Proxy."""

__version__ = "0.1.0"
