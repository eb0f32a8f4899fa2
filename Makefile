# The two commands of the README, and what they stand on. `make help` lists them.

PYTHON ?= python3
# Another Python than the default has a virtual environment beside it: .venv-python3.12.
VENV ?= .venv$(patsubst %,-%,$(notdir $(filter-out python3,$(PYTHON))))
PROCESSES ?= 2
BIN := $(VENV)/bin
# Sizes of the study in `make dist`; QUICK= makes it as long as a user's.
QUICK ?= --total-steps 20k --eval-every 5k --validate-steps 40k --validate-seeds 8

.DEFAULT_GOAL := help
.PHONY: help install tune test test-slow test-oldest test-suites test-accelerator coverage docs dist constraints lint format check clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 20

# A shell may forbid Python to write bytecode. Without any, a command takes seconds more to start.
unexport PYTHONDONTWRITEBYTECODE

# Bytecode is made after it, on all cores; pip takes one.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile

# The stamp is as new as the last install, so that a changed dependency is installed anew.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	-$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
	@touch $@

install: $(VENV)/.installed  ## Make a virtual environment and install everything into it

tune: install  ## Run the 20-trial study on CartPole-v1; ARGS="--env Acrobot-v1" passes options
	$(BIN)/python -m tune.run --trials 20 $(ARGS)

PYTEST := python -m pytest --numprocesses $(PROCESSES)
# By file, because the tests of a file share compiled programs; the longest files come first.
BY_FILE := --dist loadfile --no-loadscope-reorder

test: install  ## Run the tests that are quick, in PROCESSES (2); ARGS passes options to pytest
	$(BIN)/$(PYTEST) $(BY_FILE) -m "not slow" $(ARGS)

test-slow: install  ## Run the tests that take long: whole studies, killed studies, learning
	$(BIN)/$(PYTEST) --dist worksteal -m slow $(ARGS)

# Measuring takes a quarter of the time on Python 3.11.
coverage: install  ## Run the quick tests and print which lines of each file they leave out
	$(BIN)/$(PYTEST) $(BY_FILE) -m "not slow" --cov --cov-report=term-missing:skip-covered $(ARGS)

test-oldest:  ## Run the quick tests with the oldest allowed versions, in a virtual environment beside
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python $(PIP_INSTALL) --constraint constraints-oldest.txt --editable '.[test]'
	.venv-oldest/bin/$(PYTEST) $(BY_FILE) -m "not slow" -W default $(ARGS)

test-suites:  ## Test all suites of environments, in a virtual environment beside
	$(PYTHON) -m venv .venv-suites
	.venv-suites/bin/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[test,brax,craftax,jumanji,navix,playground,xminigrid]'
	.venv-suites/bin/python -m pytest tests/ppo_jax/test_suites.py

test-accelerator: install  ## Count the launches of an H100 and a TPU without either; downloads 500 MB once
	$(BIN)/python -m benchmarks.accelerator --install-only
	$(BIN)/python -m pytest tests/benchmarks/test_accelerator.py $(ARGS)

docs: install  ## Build the documentation into build/site; a broken link is an error
	$(BIN)/python -m mkdocs build --strict --quiet

dist: install  ## Build wheel and sdist into dist/, and run a quick study from the wheel in an environment of its own
	rm -rf dist build/dist-check
	$(BIN)/python -m build --quiet
	@for file in LICENSE constraints.txt examples/train.py examples/cluster/slurm_array.sh docs/using.md; do \
		tar tzf dist/*.tar.gz | grep -q "/$$file$$" || { echo "the sdist lacks $$file"; exit 1; }; done
	$(PYTHON) -m venv build/dist-check
	build/dist-check/bin/python $(PIP_INSTALL) --constraint constraints.txt dist/*.whl
	cd build/dist-check && bin/ppo-jax-tune --quick $(QUICK)
	test -s build/dist-check/runs/CartPole-v1/report.html

lint: install  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

UV_COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --no-annotate --custom-compile-command "make constraints"
# Those of today that are still allowed are kept; `rm constraints.txt` before for the newest.
constraints: install  ## Resolve the versions in constraints.txt and constraints-oldest.txt
	$(BIN)/python $(PIP_INSTALL) uv
	$(UV_COMPILE) --extra dev --extra mysql --universal --python-version 3.11 --output-file constraints.txt
	$(UV_COMPILE) --extra test --python-version 3.11 --resolution lowest-direct --output-file constraints-oldest.txt

check: lint test test-slow  ## Lint and run all tests

clean:  ## Remove the virtual environments and all caches; results in runs/ stay
	rm -rf .venv .venv-* build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
