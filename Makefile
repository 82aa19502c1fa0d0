# Every recipe stands on `setup`, which does nothing while .venv is current.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first Python on the path that is new enough; override with `make PYTHON=/path/to/python3.12 setup`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
# Named after what an installation depends on, the folder included: a venv and an editable install hold absolute paths.
STAMP := .venv/.installed-$(shell { pwd; cat pyproject.toml constraints.txt; } | cksum | tr ' ' -)

.PHONY: help setup quickstart test chaos check docs bench golden clean

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

setup: $(STAMP) ## Install into .venv; nothing to do when it is current

# The stamp is written last, so an interrupted installation is taken up again, from pip's cache.
$(STAMP):
	@test -n "$(PYTHON)" || { echo "pgray needs Python >= 3.11; found: $$(python3 --version 2>&1). Install one, or: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@rm -f .venv/.installed-*
	@{ $(BIN)/python -m pip --version >/dev/null 2>&1 && grep -q "$(CURDIR)/.venv" $(BIN)/pip; } || $(PYTHON) -m venv --clear .venv || \
		{ echo "cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "Installing into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@
	@echo "Installed: .venv/bin/pgray"

quickstart: setup ## Run sweeps/quickstart.yaml on this machine and print its table
	@$(BIN)/pgray data build
	@code=0; $(BIN)/pgray run sweeps/quickstart.yaml || code=$$?; echo; \
	echo "Table: runs/quickstart/table.md (also .csv and .parquet); again: .venv/bin/pgray table runs/quickstart"; \
	echo "Report: runs/quickstart/report.html (open it in a browser); again: .venv/bin/pgray report runs/quickstart"; \
	echo "Logs:  runs/quickstart/jobs/*/log.txt and runs/quickstart/trials/*/log.txt"; \
	exit $$code

test: setup check ## Checks, then the whole CPU test suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile  # much of the suite waits for other processes

chaos: setup ## Kill everything at random, again and again, and plan sweeps that nobody would write (half an hour)
	@PGRAY_CHAOS_KILLS=120 PGRAY_FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest -s tests/pgray/scheduler/test_chaos.py tests/pgray/cli/test_fuzz.py

check: setup ## Format, lint, types, layers, generated docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/generate.py --check

docs: setup ## Rewrite docs/columns.md and docs/config.md from the code
	@$(BIN)/python docs/generate.py

bench: setup ## Run the benchmarks in bench/
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

golden: setup ## Regenerate tests/golden; commit it alone and say why
	@$(BIN)/python tests/golden/regenerate.py

clean: ## Remove .venv and caches; runs/ and data/ stay
	@rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
