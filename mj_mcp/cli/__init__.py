"""The commands. The words for a person at a terminal are written here."""

import sys

# structlog and the SDK import rich wherever it is installed, which costs a start of the server 100 ms. Only a command
# that shows a table needs it (`terminal.py`).
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
