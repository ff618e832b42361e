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

# What running tests needs, without the tools that look at the source.
TEST_PACKAGES := hypothesis pytest pytest-timeout psutil

# Tests that `make test` runs once more with a checksum on every batch: what the loader's promise rests on. `make test-verify`
# runs all that have batches so.
VERIFIED := $(patsubst %,tests/loader/test_%.py,verify ownership equal_to_torch batch_types redo iterable pinned)

# Tests mostly wait for processes, so two run side by side. A file's tests stay together: they share what is dear to make.
# `make TEST_PROCESSES=0 test` runs them one after the other, in this process. Those that measure are run by themselves.
TEST_PROCESSES ?= 2
TOGETHER := -n $(TEST_PROCESSES) --dist loadfile -m 'not alone and not containers'

.DEFAULT_GOAL := help
.PHONY: help demo test soak test-verify test-frameworks test-matrix test-torch lint format changelog
.NOTPARALLEL:

help:
	@echo "make demo         tune an unmodified training script on real photographs"
	@echo "make test         lint, types, floors, and every test"
	@echo "make soak         a thousand workers killed at random moments, every batch checked (a few minutes)"
	@echo "make test-verify  every test of the loader and above with a checksum on every batch (KEEPFED_VERIFY=1)"
	@echo "make test-frameworks  Lightning, Accelerate and others with our loader, in an environment of their own"
	@echo "make test-matrix  the loader's tests under each torch of TORCHES, one environment at a time (KEEP=1 keeps them)"
	@echo "make test-containers  the loader in real containers with little memory (needs podman and runc)"
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

# The suite comes last, in two parts, so that its closing lines are the last ones.
test: lint
	KEEPFED_VERIFY=1 $(PY) -m pytest -q $(TOGETHER) $(VERIFIED)
	$(PY) -m pytest $(TOGETHER)
	$(PY) -m pytest -m alone

# The second line with a checksum on every batch. Both print their seeds; --seed plays one again.
soak: $(STAMP)
	$(PY) benchmarks/soak.py --kills 1000 --minutes 10
	$(PY) benchmarks/soak.py --kills 250 --minutes 5 --verify

# Rooms without a loader have no batches to check.
LOADERLESS := $(patsubst %,--ignore=tests/%,containers edit engine host inside knobs policy recreate write)

test-verify: $(STAMP)
	KEEPFED_VERIFY=1 $(PY) -m pytest $(TOGETHER) $(LOADERLESS)
	KEEPFED_VERIFY=1 $(PY) -m pytest -m alone

# fastai comes without what it declares: it wants torchvision, which is built for one torch each and which nothing here uses.
FRAMEWORKS := .venv-frameworks
FRAMEWORK_PACKAGES := lightning accelerate transformers torchdata torch_geometric \
	fastcore fastprogress fasttransform plum-dispatch matplotlib pandas scikit-learn scipy requests pyyaml pillow
test-frameworks:
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[torch]' $(TEST_PACKAGES) $(FRAMEWORK_PACKAGES)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps fastai
	KEEPFED_TEST_FRAMEWORKS=1 $(FRAMEWORKS)/bin/python -m pytest tests/frameworks

# The wheels are large, so there is one environment at a time; the pins of torch and what hangs on it are left out.
TORCHES ?= 2.6.0 2.13.0 2.15.0
TORCH ?= 2.13.0
TORCH_VENV = .venv-torch-$(TORCH)
test-matrix:
	for version in $(TORCHES); do $(MAKE) test-torch TORCH=$$version || exit 1; done

test-torch:
	$(PYTHON) -m venv $(TORCH_VENV)
	grep -v '^torch==' constraints.txt > $(TORCH_VENV)/constraints.txt
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir \
		--constraint $(TORCH_VENV)/constraints.txt --editable '.[torch]' 'torch==$(TORCH)' $(TEST_PACKAGES)
	$(TORCH_VENV)/bin/python -c 'import sys; from keepfed.loader.torch_seam import missing; sys.exit(", ".join(missing()))'
	$(TORCH_VENV)/bin/python -m pytest tests/loader; code=$$?; \
		if [ -z "$(KEEP)" ]; then rm -rf $(TORCH_VENV); fi; exit $$code

test-containers: $(STAMP)
	$(PY) -m pytest -m containers tests/containers

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

changelog: $(STAMP)
	$(BIN)/towncrier build --draft
