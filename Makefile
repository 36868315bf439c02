# Two commands need nothing but Python 3.11 or newer: `make demo` and `make test`.
# Each creates .venv with what it needs and runs.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
# Most tests wait for a server, so more of them than cores run at once.
JOBS ?= 4
# Each worker of the tests would rewrite every test module anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

NPM_DIR := $(VENV)/conformance
# Clients that can share an environment do; the short list is the gate's.
HOSTS := $(VENV)/hosts
HOSTS_GATE := $(HOSTS)/npm/.done $(HOSTS)/mcp1/.done $(HOSTS)/mcp2/.done
HOSTS_ALL := $(HOSTS_GATE) $(HOSTS)/npm/.done-all $(HOSTS)/mcp1-all/.done $(HOSTS)/mcp2-all/.done $(HOSTS)/adk/.done

# Hosts with commands of their own, to test `mj-mcp install` with.
CLIS := $(VENV)/clis

# The packer of MCP bundles, and the checker of workflows.
PACKAGING := $(VENV)/packaging

# Reverse proxies to test deploy/ with, as Debian packages them, in a folder of their own.
PROXIES := $(abspath $(VENV)/proxies)
APT := apt-get -qq -o Dir::State::Lists=$(PROXIES)/apt/lists -o Dir::Cache=$(PROXIES)/apt -o APT::Sandbox::User=root

# A browser for the tests of the view, with the libraries that this machine lacks; and hosts of the view from npm.
VIEWS := $(abspath $(VENV)/views)
VIEWS_APT := apt-get -qq -o Dir::State::Lists=$(VIEWS)/apt/lists -o Dir::Cache=$(VIEWS)/apt -o APT::Sandbox::User=root -o Debug::NoLocking=1

# The longest first: the gate runs several at once.
BENCHES := money-postgres money processes journal scale cadence sheet overhead http_load live startup
BRIEF_money := --processes 4 --seed 1
BRIEF_money-postgres := --processes 3 --database postgres --seed 1

# Pythons and systems that this machine may not have.
TYPES := 3.12-linux 3.13-linux 3.14-linux 3.11-darwin 3.11-win32

.PHONY: demo test lint types types-all tests tests-slow examples conformance hosts hosts-install hosts-all clis-install packaging-install proxies-install views-install bench docs screens bundle snapshots clean $(BENCHES:%=bench-%) $(TYPES:%=types-%)

demo: $(VENV)/.installed ## the whole job against the built-in simulator; costs nothing
	$(BIN)/mj-mcp demo

test: lint types tests ## the gate runs more: see `.ci/run`

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## for 3.11 on Linux
	$(BIN)/mypy

types-all: $(TYPES:%=types-%) ## what is shipped, for the other Pythons and systems

$(TYPES:%=types-%): types-%: $(VENV)/.installed-dev
	$(BIN)/mypy --python-version $(firstword $(subst -, ,$*)) --platform $(lastword $(subst -, ,$*)) \
	  --cache-dir .mypy_cache/$* mj_mcp examples

tests: $(VENV)/.installed-dev ## all that are not slow; skips are named
	$(BIN)/python -m pytest -rs -n $(JOBS) --dist worksteal -m "not slow" $(if $(CI),--cov --cov-fail-under=85)

tests-slow: $(VENV)/.installed-dev $(if $(CI),$(CLIS)/.done $(PACKAGING)/.done $(PROXIES)/.done $(VIEWS)/.done) ## kills, replicas, queues and long waits
	$(BIN)/python -m pytest -rs -n $(JOBS) --dist worksteal -m slow

examples: $(VENV)/.installed-dev $(if $(CI),$(HOSTS)/mcp2/.done) ## that of a framework runs where `make hosts-install` has been
	$(BIN)/python examples/agent.py
	$(BIN)/python examples/batch.py
	@if test -f $(HOSTS)/mcp2/.done; then PATH="$(abspath $(BIN)):$$PATH" $(HOSTS)/mcp2/bin/python examples/with_pydantic_ai.py; \
	else echo "with_pydantic_ai.py: skipped, since Pydantic AI is missing: make hosts-install"; fi

conformance: $(VENV)/.installed-dev $(if $(CI)$(shell command -v npm),$(NPM_DIR)/.done) ## the official suite over HTTP; needs npm, which brings the Node that the suite needs
	@if test -f $(NPM_DIR)/.done; then $(BIN)/python tests/conformance/run.py $(NPM_DIR); \
	else echo "conformance: skipped, since npm is missing"; fi

hosts: $(VENV)/.installed-dev $(if $(CI)$(shell command -v npm),$(HOSTS_GATE)) ## real clients, none of them ours: what reaches their callers; needs npm
	@if test -f $(HOSTS)/npm/.done; then $(BIN)/python tests/hosts/matrix.py $(HOSTS); \
	else echo "hosts: skipped, since npm is missing"; fi

hosts-install: $(HOSTS_GATE)

proxies-install: $(PROXIES)/.done

views-install: $(VIEWS)/.done ## the browser and the hosts for the tests of the view

clis-install: $(CLIS)/.done ## Claude Code, Codex and Gemini CLI for the tests of `mj-mcp install`; 1.1 GB

packaging-install: $(PACKAGING)/.done ## the packer of MCP bundles and the checker of workflows

hosts-all: $(HOSTS_ALL) ## more of them, and the table in docs/hosts.md; installs 2.5 GB
	$(BIN)/python tests/hosts/matrix.py $(HOSTS) --all --write docs/hosts.md

bench: $(BENCHES:%=bench-%) ## each benchmark, briefly

$(BENCHES:%=bench-%): bench-%: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/$(firstword $(subst -, ,$*)).py --quick $(BRIEF_$*)

docs: $(VENV)/.installed-dev ## writes the tables of the docs and the manifests of the packages anew from the code
	$(BIN)/python tests/support/readme.py
	$(BIN)/python tests/support/manifests.py

screens: $(VENV)/.installed-dev ## writes docs/screens.md: what the commands print
	PYTHONPATH=tests:tests/outside:tests/support $(BIN)/python tests/support/screens.py

bundle: $(VENV)/.installed-dev $(PACKAGING)/.done ## dist/mj-mcp-VERSION.mcpb, which Claude Desktop installs with a double click
	$(BIN)/python tests/support/bundles.py dist

snapshots: $(VENV)/.installed-dev ## writes the tools' committed definitions anew
	MJ_WRITE_SNAPSHOTS=1 $(BIN)/python -m pytest tests/server/test_surface.py

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "mj-mcp needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing in $(VENV), which takes a minute or two ..."
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

# It has all that `.installed` has, in one go.
$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing in $(VENV), with all that the tests need, which takes a few minutes ..."
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(PROXIES)/.done: | $(VENV)/.created
	@command -v apt-get >/dev/null || { echo "proxies: caddy and nginx come from Debian, and apt-get is missing"; exit 1; }
	@mkdir -p $(PROXIES)/apt/lists/partial $(PROXIES)/apt/archives/partial
	@$(APT) update && cd $(PROXIES)/apt && $(APT) download caddy nginx
	@for package in $(PROXIES)/apt/*.deb; do dpkg -x $$package $(PROXIES) || exit 1; done
	@rm -r $(PROXIES)/apt && touch $@

$(VIEWS)/chromium/.done: | $(VENV)/.created
	@command -v apt-get >/dev/null || { echo "views: chromium comes from Debian, and apt-get is missing"; exit 1; }
	@mkdir -p $(VIEWS)/apt/lists/partial $(VIEWS)/apt/archives/partial
	@$(VIEWS_APT) update && $(VIEWS_APT) install --yes --download-only --no-install-recommends \
	  chromium-headless-shell fonts-dejavu-core
	@for package in $(VIEWS)/apt/archives/*.deb; do dpkg -x $$package $(@D) || exit 1; done
	@rm -r $(VIEWS)/apt && touch $@

$(VIEWS)/.done: tests/views/package.json tests/views/host.js $(VIEWS)/chromium/.done
	@command -v npm >/dev/null || { echo "views: npm is missing"; exit 1; }
	@cp tests/views/package.json tests/views/host.js $(VIEWS)
	@cd $(VIEWS) && npm install --silent --no-audit --no-fund --no-package-lock \
	  && node_modules/.bin/esbuild host.js --bundle --format=iife --outfile=host.bundle.js --log-level=error
	@touch $@

$(NPM_DIR)/.done: | $(VENV)/.created
	@command -v npm >/dev/null || { echo "conformance: npm is missing"; exit 1; }
	@npm install --silent --no-audit --no-fund --prefix $(NPM_DIR) \
	  node@22.23.3 @modelcontextprotocol/conformance@0.2.0-alpha.12
	@touch $@

$(HOSTS)/npm/.done: tests/hosts/package.json | $(VENV)/.created
	@command -v npm >/dev/null || { echo "hosts: npm is missing"; exit 1; }
	@mkdir -p $(@D) && cp $< $(@D)
	@cd $(@D) && npm install --silent --no-audit --no-fund --no-package-lock --omit=dev
	@touch $@

$(HOSTS)/npm/.done-all: $(HOSTS)/npm/.done
	@cd $(@D) && npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@

$(CLIS)/.done: tests/hosts/clis/package.json | $(VENV)/.created
	@command -v npm >/dev/null || { echo "clis: npm is missing"; exit 1; }
	@mkdir -p $(@D) && cp $< $(@D)
	@cd $(@D) && npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@

$(PACKAGING)/.done: tests/packages/package.json | $(VENV)/.created
	@command -v npm >/dev/null || { echo "packaging: npm is missing"; exit 1; }
	@mkdir -p $(@D) && cp $< $(@D)
	@cd $(@D) && npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@

# No client shares the server's own environment: most pin what it uses otherwise.
$(HOSTS)/%/.done: tests/hosts/%.txt $(VENV)/.installed-dev
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	@$(BIN)/uv pip install --quiet --no-deps --python $(@D) --requirement $<
	@touch $@

clean:
	rm -rf $(VENV) mj-demo .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
