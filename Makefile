# Every target makes the environment it needs, in .venv.
PYTHON ?= python3
BIN = .venv/bin
PYTEST_FLAGS ?=
# Two processes, one thread each: the tensors of tests are small.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_FLAGS)

.PHONY: demo test test-all lint zip docs
demo: .venv/installed
	$(BIN)/metalora demo --out demo-result

test: .venv/installed lint
	$(PYTEST) -m "not slow"

test-all: .venv/installed lint
	$(PYTEST)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .venv/pack && ln -sfn ../.. .venv/pack/meta_lora  # a package's name, as ComfyUI gives the folder one
	$(BIN)/mypy

# The documentation as a site, site/index.html; a broken link is an error.
docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict

# What ComfyUI's registry installs, of the last commit: unpack it into custom_nodes/metalora.
zip:
	git archive --format=zip -9 --output=node.zip HEAD . $$(sed -n 's,^/,:(exclude),p' .comfyignore)

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@
