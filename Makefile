# Everything that is needed to run, test and change till-agent on a fresh Debian 12.
# Needs make and Python 3.11 or newer with venv; the first call of a target installs the rest into
# .venv, and from then on nothing is fetched any more.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOCK_VENV := .cache/lock-venv

# Installed versions come from the lock alone, whatever the machine's own pip settings say.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
# A lock names versions and hashes, never the place that they came from.
LOCK := $(LOCK_VENV)/bin/pip-compile --quiet --generate-hashes --no-header --no-emit-index-url \
	--no-emit-trusted-host --no-emit-find-links --no-emit-options --strip-extras --allow-unsafe

# Options for pytest or for the locking, as in: make test ARGS="-k lane", make lock ARGS=--upgrade
ARGS ?=

# One more than the cores of a small machine: most tests wait for sockets half of their time.
WORKERS ?= 3
# These keep a core busy each.
SYSTEM_WORKERS ?= 2

# Compiled files are kept: the tests start many processes, and each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run demo test test-system system-tools screenshots soak bench deb check check-style \
	check-types check-imports lock clean setup

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## Only install what the other targets need

run: $(INSTALLED) ## Run the agent against the sandbox, to try it out
	$(BIN)/till-agent try

demo: $(INSTALLED) ## Show the whole story in a minute: sign-ups, an outage, a kill, and the count
	$(BIN)/till-agent demo

test: $(INSTALLED) ## Run the quick tests
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) $(ARGS)

test-system: $(INSTALLED) system-tools ## Run what needs the machine, minutes or many examples
	$(BIN)/python -m pytest -m "system or hypothesis" --hypothesis-profile=thorough \
		--numprocesses=$(SYSTEM_WORKERS) --dist=loadfile $(ARGS)

screenshots: $(INSTALLED) system-tools ## Take the pictures of the page anew (docs/images)
	TILL_AGENT_SCREENSHOTS=docs/images $(BIN)/python -m pytest -m system tests/browser/test_screenshots.py

soak: $(INSTALLED) ## Play 90 days offline, then random histories: make soak ARGS="--histories 9000"
	$(BIN)/python tests/proof $(ARGS)

bench: $(INSTALLED) ## Measure how fast changes are taken and delivered
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.fleet
	$(BIN)/python -m tests.bench.sealing

deb: $(INSTALLED) ## Build the Debian package into dist/
	packaging/deb/build.sh

check: check-style check-types check-imports ## Run every check that needs no test

check-style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: $(INSTALLED)
	$(BIN)/mypy

check-imports: $(INSTALLED)
	$(BIN)/lint-imports

lock: $(LOCK_VENV)/.installed ## Write both lock files anew from pyproject.toml
	$(LOCK) $(ARGS) --extra encrypted --output-file requirements.lock pyproject.toml
	$(LOCK) $(ARGS) --extra sandbox --extra encrypted --extra dev \
		--output-file requirements-dev.lock pyproject.toml
	@if grep -nE '://|^ *--(index|extra-index|find|trusted)' requirements.lock requirements-dev.lock; \
	then echo "A lock names the place that packages came from; see the lines above." >&2; exit 1; fi

clean: ## Remove everything that the other targets made
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find agent tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- setting up ---------------------------------------------------------------------------------

# An interrupted set-up leaves no stamp and is begun again; a venv whose Python is gone is made anew.
$(INSTALLED): requirements-dev.lock pyproject.toml
	@packaging/check-python.sh $(PYTHON)
	@echo "Setting up $(VENV); this takes about a minute and happens once."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@# The lock names everything already, and Python compiles what it needs when it first needs it.
	@$(PIP) install --no-compile --no-deps --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-compile --no-deps --no-build-isolation --editable .
	@touch $@

$(LOCK_VENV)/.installed:
	@packaging/check-python.sh $(PYTHON)
	@$(PYTHON) -m venv --clear $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python -m pip --disable-pip-version-check --quiet install pip-tools==7.6.2
	@touch $@

system-tools:
	@packaging/system-tools.sh
