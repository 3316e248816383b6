# `make help` lists what there is. Everything runs in $(VENV), which `make setup` makes once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
# The interpreter for the environment; empty: the first Python 3.11 on the path.
PYTHON ?=
# Another index for torch alone, such as PyTorch's own for CPU builds (see README).
TORCH_INDEX ?=
# 1: `make demo` ends after the table.
ONCE ?=
# The folder of the datasets that gating's weights are made of, see docs/gating-data.md.
DATA ?=
# Further arguments of pytest and of `mole demo`.
ARGS ?=

STAMP := $(VENV)/.setup-done
export VENV PYTHON TORCH_INDEX

.PHONY: help setup demo test weights lint types check audit soak nightly docs lock clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@scripts/setup

setup: $(STAMP) ## Make .venv with everything (variables: PYTHON, TORCH_INDEX)

demo: $(STAMP) ## Start a worker and a coordinator and ask them (ONCE=1: then end)
	@$(VENV)/bin/mole demo $(if $(filter-out 0,$(ONCE)),--once) $(ARGS)

test: $(STAMP) ## Run the tests, and print the coverage (ARGS: for pytest)
	@scripts/test $(ARGS)

soak: $(STAMP) ## Ten minutes of mixed load: does the coordinator leak memory, tasks, sockets, files?
	@$(VENV)/bin/python -m pytest --full -s tests/integration/soak $(ARGS)

nightly: $(STAMP) ## Faults, floods, jobs, generated cases and the soak as long as their bars ask; an hour or so
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest --full -s tests/integration/{faults,jobs,services,soak} $(ARGS)

weights: $(STAMP) ## Make all of gating's weights anew (DATA=folder of the datasets); takes hours
	@scripts/weights "$(DATA)"

lint: $(STAMP) ## Mend style and imports where that is safe, then check
	@scripts/lint

types: $(STAMP) ## Check types
	@scripts/types

check: $(STAMP) ## All static checks, changing nothing
	@scripts/check

audit: $(STAMP) ## Look the pinned dependencies up in a database of known vulnerabilities; needs the network
	@scripts/audit $(ARGS)

docs: $(STAMP) ## Write the generated pages again, and build the site into site/
	@scripts/docs

lock: ## Resolve requirements.lock again
	@scripts/lock

clean: ## Remove the environment and all caches of the checkout; models stay in MOLE_CACHE_DIR
	rm -rf $(VENV) .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist site *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
