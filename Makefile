# make run | test | lint | format | bench | soak | docs | coverage | test-lowest | clean
# Needs Python >= 3.11 (choose one with PYTHON=python3.12), make and a package index; everything else is put into .venv.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
RUFF := $(BIN)/python -m ruff
PYTEST := $(BIN)/python -m pytest
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'

# Test processes start often. Some containers forbid Python to keep what it has compiled; `make clean` removes it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test lint format bench soak docs coverage test-lowest clean

# The login is for a database on this machine: an address that is already there keeps its password.
DEMO_EMAIL ?= admin@example.com
DEMO_PASSWORD ?= climb-to-the-zenith

run: $(VENV)/.installed
	@printf '%s' '$(DEMO_PASSWORD)' | $(BIN)/python -m examples.zenith.create_superuser '$(DEMO_EMAIL)' --full-name Superuser --password-stdin --if-missing
	@echo "==> http://$(HOST):$(PORT)/docs (Ctrl-C stops)"
	@echo "==> log in as $(DEMO_EMAIL) with the password $(DEMO_PASSWORD)"
	@exec $(BIN)/python -m uvicorn examples.zenith.main:app --host $(HOST) --port $(PORT)

# A run of all tests is bounded (tests/README.md); FULL=1 runs everything. ARGS="-n 0 --pdb -k router" goes to pytest.
test: lint
	@echo "==> pytest"
	@$(PYTEST) $(ARGS)

lint: $(VENV)/.installed-dev
	@echo "==> ruff format --check"
	@$(RUFF) format --check --quiet .
	@echo "==> ruff check"
	@$(RUFF) check --quiet .
	@echo "==> mypy --strict"
	@$(BIN)/python -m mypy
	@echo "==> pyright (strict)"
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/python -m pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-dev
	@$(RUFF) check --fix --quiet .
	@$(RUFF) format .

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks $(ARGS)

# Ten minutes of schemathesis against real servers; ARGS="--minutes 60" takes an hour.
soak: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.soak $(ARGS)

docs: $(VENV)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir site
	@echo "==> site/index.html"

coverage: $(VENV)/.installed-dev
	@$(BIN)/python -m coverage run -m pytest --quiet --numprocesses=0 $(ARGS)
	@$(BIN)/python -m coverage report

# The oldest versions that pyproject.toml allows, in a virtual environment of their own. Left out is what no version can change.
SAME_EVERYWHERE := house names packaging benchmarks security_page

test-lowest: $(LOWEST)/.installed
	@echo "==> mypy --strict on the oldest supported versions"
	@$(LOWEST)/bin/python -m mypy --cache-dir .mypy_cache/lowest
	@echo "==> pyright (strict) on the oldest supported versions"
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(LOWEST)/bin/python -m pyright --pythonpath $(LOWEST)/bin/python
	@echo "==> pytest on the oldest supported versions"
	@$(LOWEST)/bin/python -m pytest --numprocesses=auto $(SAME_EVERYWHERE:%=--ignore=tests/test_%.py) $(ARGS)

clean:
	@rm -rf $(VENV) $(LOWEST) dist build site .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a virtual environment is brought up to date when pyproject.toml is newer than its stamp.
$(BIN)/python:
	@$(CHECK_PYTHON)
	@echo "==> creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.pip: | $(BIN)/python
	@$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.pip
	@echo "==> installing fastapi_kit with its extras"
	@$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.pip
	@echo "==> installing fastapi_kit with its extras and the tools"
	@$(PIP) --editable '.[all,testing]' --group test --group neighbours --group lint
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/.pip
	@echo "==> installing the tools of the documentation"
	@$(PIP) --group docs
	@touch $@

$(LOWEST)/.installed: pyproject.toml
	@$(CHECK_PYTHON)
	@echo "==> installing the oldest supported versions into $(LOWEST)"
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(PYTHON) -m venv $(LOWEST)/uv
	@$(LOWEST)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOWEST)/uv/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable '.[all,testing]' --group test --group lint
	@touch $@
