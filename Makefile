# make audit      the first thing to run: trains a model with planted faults and its clean twin, audits both, writes a report
# make test       the tests up to `slow` (under 12 minutes)          make test-full   all of them
# make check      lint, types, architecture (under a minute)         make dashboard   the interactive pages on 127.0.0.1
# The first call creates .venv and installs with plain pip; a second call installs nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
MIRROR := $(wildcard ../shared/data)
export WORKBENCH_DATA_MIRROR ?= $(if $(MIRROR),$(abspath $(MIRROR)))
# pytest rewrites every test as it imports it, and tests start processes of their own: what was compiled once is kept.
unexport PYTHONDONTWRITEBYTECODE
AUDIT_ARGS ?=
# Tests run in this many processes, one file in one process; every process counts on one thread. Types are checked on as many threads.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

.PHONY: audit test test-full test-rest test-fast dashboard check clean

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Assay needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# torch first and by its exact version, so that a CPU build lying at hand is taken before the index is asked.
$(VENV)/.installed-torch: constraints.txt | $(BIN)/python
	@echo "Installing torch …" >&2
	$(PIP) install "$$(grep -i '^torch==' constraints.txt)" -c constraints.txt
	@touch $@

$(VENV)/.installed-run: pyproject.toml constraints.txt $(VENV)/.installed-torch
	@echo "Installing Assay with its report and dashboard …" >&2
	$(PIP) install -c constraints.txt -e '.[report,dashboard]'
	@touch $@

$(VENV)/.installed-all: pyproject.toml constraints.txt $(VENV)/.installed-run
	@echo "Installing everything the tests use …" >&2
	$(PIP) install -c constraints.txt -e '.[all]'
	@touch $@

audit: $(VENV)/.installed-run
	$(BIN)/workbench audit $(AUDIT_ARGS)

dashboard: $(VENV)/.installed-run
	$(BIN)/workbench dashboard

test-fast: $(VENV)/.installed-all
	$(PYTEST) -m "not slow and not full"

test: $(VENV)/.installed-all
	$(PYTEST) -m "not full"

test-full: $(VENV)/.installed-all
	$(PYTEST)

test-rest: $(VENV)/.installed-all
	$(PYTEST) -m full

check: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --threads $(TEST_PROCESSES)
	$(BIN)/python -m pytest tests/test_architecture.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
