# Every recipe depends on `setup`, which does nothing if .venv is current.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first new enough Python on the path. To choose another: `make PYTHON=/path/to/python3.12 setup`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
# The name is a checksum of what an installation depends on, and of the folder: a venv contains absolute paths.
STAMP := .venv/.installed-$(shell { pwd; cat pyproject.toml constraints.txt; } | cksum | tr ' ' -)

.PHONY: help setup quickstart test chaos check docs pictures bench golden clean

help: ## List the recipes
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

setup: $(STAMP) ## Install into .venv; does nothing if it is current

# The stamp is written last, so the next call repeats an interrupted installation, with pip's cache.
$(STAMP):
	@test -n "$(PYTHON)" || { echo "pgray needs Python >= 3.11; found: $$(python3 --version 2>&1). Install one, or: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@rm -f .venv/.installed-*
	@{ $(BIN)/python -m pip --version >/dev/null 2>&1 && grep -q "$(CURDIR)/.venv" $(BIN)/pip; } || $(PYTHON) -m venv --clear .venv || \
		{ echo "cannot create a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "Installing into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@
	@echo "Installed: .venv/bin/pgray"

quickstart: setup ## Run sweeps/quickstart.yaml on this machine and print its table
	@$(BIN)/pgray data build
	@code=0; $(BIN)/pgray run sweeps/quickstart.yaml || code=$$?; echo; \
	echo "Table:  runs/quickstart/table.md (also .csv and .parquet); on screen: .venv/bin/pgray table runs/quickstart"; \
	echo "Report: runs/quickstart/report.html; in the browser: .venv/bin/pgray report --open runs/quickstart"; \
	echo "Logs:   runs/quickstart/driver.log, runs/quickstart/trials/*/log.txt; on screen: .venv/bin/pgray logs runs/quickstart"; \
	exit $$code

test: setup check ## Run all checks and the CPU test suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile  # two at a time: tests often wait for other processes

chaos: setup ## Kill processes at random and fuzz sweep files (half an hour)
	@PGRAY_CHAOS_KILLS=120 PGRAY_FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest -s tests/pgray/scheduler/test_chaos.py tests/pgray/cli/test_fuzz.py

check: setup ## Check format, lint, types, layers and generated docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/generate.py --check

docs: setup ## Rewrite the generated docs pages and the outputs in the tutorial and the notebook
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/fill_outputs.py
	@$(BIN)/python docs/notebook.py

pictures: setup ## Draw the README's pictures from the report of runs/quickstart (needs Chromium)
	@$(BIN)/python docs/pictures.py runs/quickstart

bench: setup ## Run the benchmarks in bench/
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

golden: setup ## Rewrite tests/golden; commit it separately and say why
	@$(BIN)/python tests/golden/regenerate.py

clean: ## Remove .venv and caches; keep runs/ and data/
	@rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
