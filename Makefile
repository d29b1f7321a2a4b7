# What a developer types. Everything runs from .venv, which is made anew whenever pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.made

.PHONY: help demo test check pages bench clean
.DELETE_ON_ERROR:
# One thing at a time: `make -j check test` must end with pytest's summary, too.
.NOTPARALLEL:

help:
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "dcmsync needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
		     "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -e '.[dev]' </dev/null
	touch $@

demo: $(STAMP) ## see query, filter and pull at work, on this machine alone
	@$(BIN)/dcmsync demo

check: $(STAMP) ## style, types, floor plan, and whether the pages are current
	$(BIN)/ruff check dcmsync tests $(wildcard bench)
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m dcmsync.cli.pages --check

test: $(STAMP) ## the whole suite, real peers and all
	@$(BIN)/python -m pytest -n auto --dist loadgroup -q

pages: $(STAMP) ## write man pages and completions anew
	$(BIN)/python -m dcmsync.cli.pages

bench: $(STAMP) ## the table of speeds, with the versions of the peers
	$(BIN)/python -m bench

clean: ## take away what can be made again
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find dcmsync tests $(wildcard bench) -name __pycache__ -type d -prune -exec rm -rf {} +
