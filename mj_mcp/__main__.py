"""`python -m mj_mcp` is `mj-mcp`."""

from mj_mcp.cli import main

main()
