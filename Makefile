# The first `make demo` or `make test` builds .venv; later ones use it again until pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Programs in there begin with this folder's path, which may have spaces or be too long; -P, as they don't import from here.
RUN := $(BIN)/python -P -m
DEMO := runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench nightly clean

help:
	@echo 'make demo     run the packaged model on a packaged clip; results in $(DEMO)'
	@echo 'make test     ruff, mypy and the tests'
	@echo 'make lint     ruff and mypy alone'
	@echo 'make bench    the benchmarks; an hour, and their tables go into docs/benchmarks.md'
	@echo 'make nightly  the slow tests that `make test` leaves out'
	@echo 'make clean    remove build outputs and caches; .venv and runs stay'

demo: $(VENV)/.installed
	$(RUN) deltascene run configs/demo/room.mp4 -o $(DEMO) --preset balanced --truth configs/demo/room.truth.npz
	@echo
	@echo 'Look at the overlay video and the report in $(DEMO).'

test: lint
	$(RUN) pytest -m 'not nightly' -n 2 --dist worksteal --max-worker-restart 0 --durations 10

lint: $(VENV)/.installed-dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/write_page.py

nightly: $(VENV)/.installed-dev
	$(RUN) pytest -m nightly --durations 10

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find cache configs pipeline stages tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "deltascene needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	}
	$(PYTHON) -m venv $(VENV)
