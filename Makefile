# Four commands: `make demo`, `make federation` and `make network` run the main jobs, `make test` passes the tests. Each first makes
# its own environment from nothing but Python 3.11 (with venv) and make: uv into a private folder, no system pip.
PYTHON ?= python3
UV := .uv/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
JOBS ?= 2
PIN := --universal --generate-hashes --python-version 3.11 --no-header --quiet

.PHONY: help demo federation network extras test check bench format pin clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

.uv/.ready: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11"; echo "hint: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.made: .uv/.ready
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@touch $@

.venv/.demo: .venv/.made requirements/demo.txt pyproject.toml
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/demo.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.made requirements/dev.txt pyproject.toml
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@ .venv/.demo

demo: .venv/.demo  ## one exchange, four owners, real jobs, a lost site, one bill per owner
	@$(BIN)/tieline demo $(ARGS)

federation: .venv/.demo  ## four exchanges, six sites, a cut, bills and logs of both sides
	@$(BIN)/python examples/federation/run.py $(ARGS)

network: .venv/.dev  ## seven routers and four sites in namespaces: booked, carried, cut, healed, billed
	@$(BIN)/python examples/network_lab/run.py $(ARGS)

extras: .venv/.dev  ## everything optional, pinned: circuits, S3 stores, PostgreSQL, controllers, and what the tests need

test: .venv/.dev  ## every test, two files at a time; ARGS="-k name" narrows, JOBS=0 takes one after the other
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: .venv/.dev  ## ruff, mypy --strict, the layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: .venv/.dev  ## one table: figure, anchor, ratio; ARGS="find_million" runs one
	@$(BIN)/python -m bench $(ARGS)

format: .venv/.dev  ## format and sort imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --exit-zero --quiet .

pin: .uv/.ready  ## resolve the pinned versions anew
	@$(UV) pip compile $(PIN) --upgrade requirements/uv.in -o requirements/uv.txt
	@$(UV) pip compile $(PIN) --upgrade pyproject.toml requirements/build.in -o requirements/core.txt
	@$(UV) pip compile $(PIN) --upgrade --extra demo pyproject.toml requirements/build.in -o requirements/demo.txt
	@$(UV) pip compile $(PIN) --upgrade --all-extras pyproject.toml requirements/build.in -o requirements/dev.txt

clean:  ## remove the environments
	@rm -rf .uv .venv
