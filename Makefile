# `make demo` and `make test` make the environment they need, in .venv.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test lint
demo: .venv/installed
	$(BIN)/metalora demo --out demo-result

test: .venv/installed lint
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@
