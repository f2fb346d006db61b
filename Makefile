# Two commands for users: `make quickstart` and `make test`. Each sets up all it needs in $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: quickstart test docs lint format clean

quickstart: $(VENV)/.installed
	$(BIN)/polydraft quickstart

# In two processes: what uses Ray, and all else (tests/conftest.py).
test: lint
	$(BIN)/python -m pytest --numprocesses 2

# Its pages of settings and of request fields are made anew; then build/site, which needs no network.
docs: $(VENV)/.installed-dev
	$(BIN)/polydraft reference settings > docs/reference/settings.md
	$(BIN)/polydraft reference http > docs/reference/http.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file docs/site/mkdocs.yml

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# PyTorch first and pinned: a looser request, from another package, may bring gigabytes of CUDA libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build runs .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
