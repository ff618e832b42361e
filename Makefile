# Two commands for a fresh machine that has Python and make:
#   make demo    tune an unmodified training script on real photographs
#   make test    everything that has to hold
# Both make .venv on first use and bring it up to date when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.keepfed-installed
PHOTOS := examples/photos

# Rooms whose tests run once more with a checksum on every batch; what is not built yet is left out.
VERIFIED := $(wildcard tests/loader tests/launch)

.DEFAULT_GOAL := help
.PHONY: help demo test test-verify lint format changelog
.NOTPARALLEL:

help:
	@echo "make demo         tune an unmodified training script on real photographs"
	@echo "make test         lint, types, floors, and every test"
	@echo "make test-verify  every test with a checksum on every batch (KEEPFED_VERIFY=1)"
	@echo "make lint         ruff, mypy and import-linter alone"
	@echo "make format       let ruff rewrite what it can"
	@echo "make changelog    show the changelog that the fragments in changelog.d/ add up to"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "keepfed needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[all,test]' --constraint constraints.txt
	@touch $@

demo: $(STAMP)
	$(PY) $(PHOTOS)/make_photos.py
	$(BIN)/keepfed tune -- $(PY) $(PHOTOS)/train.py --gpu-step-ms 110

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The whole suite comes last, so that its closing line is the last line of all.
test: lint
ifneq ($(VERIFIED),)
	KEEPFED_VERIFY=1 $(PY) -m pytest -q $(VERIFIED)
endif
	$(PY) -m pytest

test-verify: $(STAMP)
	KEEPFED_VERIFY=1 $(PY) -m pytest

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

changelog: $(STAMP)
	$(BIN)/towncrier build --draft
