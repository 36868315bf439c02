"""`python -m mj_mcp` is `mj-mcp`."""

from mj_mcp.cli.commands import run

run()
