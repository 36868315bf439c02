# Two commands need nothing but Python 3.11 or newer: `make demo` and `make test`.
# Each creates .venv with what it needs and runs.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
# Most tests wait for a server, so more of them than cores run at once.
JOBS ?= 4
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

NPM_DIR := $(VENV)/conformance

.PHONY: demo test lint types tests examples conformance bench docs snapshots clean

demo: $(VENV)/.installed ## the whole job against the built-in simulator; costs nothing
	$(BIN)/mj-mcp demo

test: lint types tests examples ## what the gate runs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

tests: $(VENV)/.installed-dev ## with branch coverage of the tests' own processes (servers that they spawn count for nothing); skips are named
	$(BIN)/python -m pytest -rs -n $(JOBS) --cov --cov-report=term:skip-covered --cov-fail-under=85

examples: $(VENV)/.installed
	$(BIN)/python examples/agent.py

conformance: $(VENV)/.installed-dev ## the official suite over HTTP; needs npm, which brings the Node that the suite needs
	@if command -v npm >/dev/null; then \
	  test -f $(NPM_DIR)/.done || { npm install --silent --no-audit --no-fund --prefix $(NPM_DIR) \
	    node@22.23.3 @modelcontextprotocol/conformance@0.2.0-alpha.12 && touch $(NPM_DIR)/.done; } && \
	  $(BIN)/python tests/conformance/run.py $(NPM_DIR); \
	elif [ -n "$$CI" ]; then echo "conformance: npm is missing"; exit 1; \
	else echo "conformance: skipped, since npm is missing"; fi

bench: $(VENV)/.installed-dev ## each benchmark, briefly
	$(BIN)/python benchmarks/startup.py --quick
	$(BIN)/python benchmarks/overhead.py --quick
	$(BIN)/python benchmarks/scale.py --quick
	$(BIN)/python benchmarks/http_load.py --quick
	$(BIN)/python benchmarks/sheet.py --quick
	$(BIN)/python benchmarks/cadence.py --quick
	$(BIN)/python benchmarks/live.py --quick
	$(BIN)/python benchmarks/money.py --quick
	$(BIN)/python benchmarks/money.py --quick --database postgres --processes 4
	$(BIN)/python benchmarks/journal.py --quick

docs: $(VENV)/.installed-dev ## writes the README's tables anew from the code
	$(BIN)/python tests/readme.py

snapshots: $(VENV)/.installed-dev ## writes the tools' committed definitions anew
	MJ_WRITE_SNAPSHOTS=1 $(BIN)/python -m pytest tests/test_surface.py

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "mj-mcp needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) mj-demo .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
