# The commands of this repository. Everything is installed into .venv by `make setup`, on which
# all others depend; a second call finds all in place and takes about a second.

PYTHON := .venv/bin/python

# Tests run in as many processes as there are cores, at most four: each starts Caffe itself.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
PYTEST = $(PYTHON) -m pytest -q -n $(WORKERS) --dist worksteal

.PHONY: help setup dev demo test test-fast test-caffe test-hard lint lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install Debian and Python packages and Caffe with our layers into .venv (docs/install.md)
	@scripts/setup_debian.sh
	@scripts/setup_python.sh
	@$(PYTHON) scripts/setup_caffe.py install

dev: setup ## Install what tests and lint need, too
	@scripts/setup_python.sh dev

demo: setup ## Train and evaluate on drawn animals, on the CPU (COMPARE=1: against convolutions, too)
	@.venv/bin/lglstm demo $(if $(filter-out 0,$(COMPARE)),--compare)

test: dev ## Run our tests, C++ and Python
	@$(PYTHON) scripts/setup_caffe.py test
	@$(PYTEST)

test-fast: dev ## Run the Python tests that are not marked slow: a minute and a half
	@$(PYTEST) -m "not slow"

test-caffe: setup ## Build and run Caffe's whole test suite, ours included (minutes)
	@$(PYTHON) scripts/setup_caffe.py test-all

# HARD="--kills 200 --steps 200 --inputs 1000000 --seed 2" says how much; an hour and a half on two cores.
test-hard: dev ## Damaged files for every reader, kills, full disks (docs: CONTRIBUTING.md)
	@$(PYTHON) tests/hard/run.py $(HARD)

lint: dev ## Check style, types and common mistakes with ruff and mypy
	@$(PYTHON) -m ruff check -q .
	@$(PYTHON) -m ruff format -q --check .
	@$(PYTHON) -m mypy --no-error-summary

# uv keeps the pinned versions that still fit; `make lock UPGRADE=--upgrade` takes the newest.
COMPILE = .venv/lock/bin/uv pip compile pyproject.toml --extra convert --extra checkout \
	--python-version 3.11 -q --generate-hashes --custom-compile-command "make lock" $(UPGRADE)
lock: ## Write the lock files anew after a change of pyproject.toml
	@/usr/bin/python3 -m venv .venv/lock && .venv/lock/bin/pip install -q uv
	@$(COMPILE) -o requirements.lock
	@$(COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock

clean: ## Remove .venv and what tools left in the checkout; data/, runs/ and the cache stay
	@rm -rf .venv .pytest_cache .ruff_cache .mypy_cache *.egg-info
	@find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +
