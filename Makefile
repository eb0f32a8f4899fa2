# The two commands of the README, and what they stand on. `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
PROCESSES ?= 2
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install tune test test-suites lint format check clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 18

# The stamp is as new as the last install, so that a changed dependency is installed anew.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## Make a virtual environment and install everything into it

tune: install  ## Run the 20-trial study on CartPole-v1; ARGS="--env Acrobot-v1" passes options
	$(BIN)/python -m tune.run --trials 20 $(ARGS)

# By files, since the tests of a file share what is slow; the longest files come first.
test: install  ## Run the test suite in PROCESSES (2); ARGS passes options to pytest
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-suites:  ## Test Brax, Navix and Craftax in an environment of their own
	$(PYTHON) -m venv .venv-suites
	.venv-suites/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,brax,navix,craftax]'
	.venv-suites/bin/python -m pytest tests/ppo_jax/test_suites.py

lint: install  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test  ## Lint and test

clean:  ## Remove the virtual environment and all caches; results in runs/ stay
	rm -rf $(VENV) .venv-suites build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
