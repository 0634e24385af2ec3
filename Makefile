# `make` alone lists the commands.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMPS := $(VENV)/.stamps
ARGS ?=
# Where CI hands in more: e.g. PYTEST_ARGS="-k kafka".
PYTEST_ARGS ?=
MINUTES ?= 3
SEED ?= 1

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|'

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) && mkdir -p $(STAMPS)
	@$(PIP) 'pip>=25.1'
	@touch $@

$(STAMPS)/runtime: $(STAMPS)/venv pyproject.toml constraints.txt
	@echo "installing babelwatch"
	@$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(STAMPS)/full: $(STAMPS)/venv pyproject.toml constraints.txt
	@echo "installing babelwatch with the training and development packages"
	@$(PIP) --constraint constraints.txt --editable '.[training]' --group dev
	@touch $(STAMPS)/runtime $@

install: $(STAMPS)/runtime ## Install the daemon into .venv

demo: $(STAMPS)/runtime ## Watch a sample stream with the real model over a real broker (ARGS=--stay keeps it up)
	@$(BIN)/babelwatch demo $(ARGS)

$(STAMPS)/tools: $(STAMPS)/full tests/support/install-tools
	@tests/support/install-tools $(BIN)
	@touch $@

servers: ## Install the real servers that the tests use, where this machine allows it
	@tests/support/install-servers

test: ## Run all tests (KAFKA_HOME and BABELWATCH_DATA add more)
	@$(MAKE) --no-print-directory --jobs $(STAMPS)/tools servers lint
	@$(BIN)/python -m pytest -n 4 --dist loadgroup $(PYTEST_ARGS)

lint: $(STAMPS)/full ## Lint, format check and strict types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy && $(BIN)/bandit --quiet --recursive --configfile pyproject.toml monitor export training deploy

audit: $(STAMPS)/full ## Look the locked packages up among known vulnerabilities (asks PyPI)
	@$(PIP) pip-audit && $(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

format: $(STAMPS)/full ## Format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(STAMPS)/full ## Measure: the model's batches, the documents' front end, the detector, delivery
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark $(ARGS) || exit 1; done

chaos: $(STAMPS)/full servers ## Break things on a real three-node Kafka for MINUTES with SEED and compare with a reference run (KAFKA_HOME)
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) $(ARGS)

docs: $(STAMPS)/full $(STAMPS)/tools ## Regenerate what is made from code: schemas, metrics, configuration, dashboards, manifests
	@$(BIN)/python -m monitor.docs
	@$(BIN)/python -m training.docs
	@$(BIN)/python deploy/grafana/dashboards.py
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python deploy/kustomize/render.py

clean: ## Remove the virtual environment and caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

.PHONY: help install demo servers test lint audit format bench chaos docs clean
