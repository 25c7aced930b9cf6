# Two commands do everything on a bare machine that has Python 3.11 or newer and make:
#   make demo    set up, then train the tiny OmniRefiner on real photos and report
#   make test    set up, then run every check

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TEST_ENV := OMP_NUM_THREADS=1
JOBS ?= 2

.PHONY: demo test test-slow test-browser test-gpu test-environments seeds studies studies-methods studies-spie setup setup-dev lint types contracts unit docs format tiny-kontext tiny-pix2pix tiny-flux2 clean

demo: setup
	$(BIN)/rlrefine train omnirefiner_tiny run.name=demo-$$(date +%Y%m%d-%H%M%S)

test: setup-dev lint types contracts unit test-browser docs

setup: $(VENV)/.train
setup-dev: $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rlrefine needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version); set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[train]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[dev]'
	$(BIN)/python .ci/torchvision_beside_cpu_torch.py
	@touch $@ $(VENV)/.train

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-dev
	$(BIN)/basedpyright

contracts: setup-dev
	$(BIN)/lint-imports

# Files in the order of their folders, so that no long one is begun last; doctests end it.
PYTEST := $(TEST_ENV) $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

unit: setup-dev
	$(PYTEST) -m "not browser and not slow"

# What repeats the idea of a test of `make unit`: further moments of a kill, levels of ZeRO, ready studies.
test-slow: setup-dev
	$(PYTEST) -m slow tests

# The pages of runs and studies in headless Chromium; each test says why where there is none.
test-browser: setup-dev
	$(TEST_ENV) $(BIN)/pytest -m browser tests/browser -rs

# Tests that need a GPU; each says why where it cannot run. With a CUDA build of torch, VENV=… names its environment.
test-gpu: setup-dev
	$(TEST_ENV) $(BIN)/pytest -m gpu tests/gpu -rs

# Tests that make virtual environments from the package index: about a minute and a gigabyte.
test-environments: setup-dev
	$(TEST_ENV) $(BIN)/pytest -m environments tests/rewards/isolated -rs

docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir .site

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The table of the README: the same recipe with three seeds, pooled. About twenty minutes on two cores; resumable.
seeds: setup
	@for seed in 0 1 2; do \
		if [ -d runs/seed-$$seed ]; then $(BIN)/rlrefine resume runs/seed-$$seed; \
		else $(BIN)/rlrefine train omnirefiner_tiny run.name=seed-$$seed run.seed=$$seed; fi || exit 1; \
	done
	$(BIN)/rlrefine report runs/seed-0 runs/seed-1 runs/seed-2

# The ready studies, one after another, JOBS arms at a time. Hours on two cores; the same command goes on where it was
# stopped.
studies: setup
	@for study in recipes/ablations/*.yaml; do \
		$(TEST_ENV) $(BIN)/rlrefine ablate $$study --jobs $(JOBS) > /dev/null || exit $$?; \
	done

# Every method from the same supervised stage at the same cost, three seeds. About an hour on one core; resumable.
studies-methods: setup
	$(BIN)/python -m studies.pairs runs/studies/pairs
	$(BIN)/rlrefine ablate studies/methods.yaml

# SPIE in miniature with three seeds, pooled, and the curve of its visual prompt's guidance. Resumable.
studies-spie: setup
	@for seed in 0 1 2; do \
		if [ -d runs/spie-$$seed ]; then $(BIN)/rlrefine resume runs/spie-$$seed; \
		else $(BIN)/rlrefine train spie_tiny run.name=spie-$$seed run.seed=$$seed; fi || exit 1; \
	done
	$(BIN)/rlrefine report runs/spie-0 runs/spie-1 runs/spie-2
	$(BIN)/python -m studies.guidance runs/studies/spie-guidance runs/spie-0 runs/spie-1 runs/spie-2

# How the embedded model was made. About an hour on two cores; a finished autoencoder is kept and used again.
tiny-kontext: setup
	$(BIN)/python -m pretraining.tiny_kontext pretraining/out

# The embedded InstructPix2Pix: about three quarters of an hour of one core.
tiny-pix2pix: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pretraining.tiny_pix2pix pretraining/out

# The embedded FLUX.2-klein: about three quarters of an hour of one core.
tiny-flux2: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pretraining.tiny_flux2 pretraining/out

clean:
	rm -rf .site .pytest_cache .ruff_cache .hypothesis .import_linter_cache
