# Every verb sets up what it needs. Wanted on the machine: Python 3.11 or later with pip, and make.
# Another interpreter: make demo PYTHON=python3.13

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
READY := .venv/ready
CUDA := sys_platform == "linux" and platform_machine == "x86_64"
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test quick check tables chaos cluster bench real-size ui lock clean

help:
	@echo 'make demo    in demo/: a WGAN on handwritten digits, swept, confirmed, promoted; ends with the path of a picture'
	@echo 'make test    all tests'
	@echo 'make quick   the tests that take seconds'
	@echo 'make check   ruff and mypy'
	@echo 'make tables  five games beside published numbers: writes docs/tables.md (about 10 minutes on two cores)'
	@echo 'make bench   the tables of benchmarks/, of speed and of search (about 40 minutes)'
	@echo 'make chaos   kills a sweep at random instants, over and over, and counts what is lost (about 15 minutes)'
	@echo 'make cluster  three Ray nodes, PostgreSQL and MLflow here; a sweep is submitted, a node killed (about 10 minutes)'
	@echo 'make real-size  the pipelines for a GPU, on made-up data: planned, and trained for three rounds'
	@echo 'make ui      the MLflow UI on what the demo did'
	@echo 'make lock    requirements.lock anew, from pyproject.toml'
	@echo 'make clean   removes the environment, the demo and all caches'

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@mkdir -p demo
	@cd demo && $(BIN)/saddle run digits-wgan

test: $(READY)
	$(BIN)/pytest

quick: $(READY)
	$(BIN)/pytest -m 'not slow'

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# First what counts seconds, then what counts rounds.
bench: $(READY)
	$(BIN)/python benchmarks/plain_loop.py
	$(BIN)/python benchmarks/sweep_speed.py
	$(BIN)/python benchmarks/sweep_efficiency.py
	$(BIN)/python benchmarks/train_scaling.py
	$(BIN)/python benchmarks/parquet_stream.py
	$(BIN)/python benchmarks/tracking_cost.py
	$(BIN)/python benchmarks/many_trials.py
	$(BIN)/python benchmarks/simulator.py
	$(BIN)/python benchmarks/search_on_digits.py

chaos: $(READY)
	$(BIN)/python benchmarks/chaos

cluster: $(READY)
	$(BIN)/python benchmarks/cluster

tables: $(READY)
	$(BIN)/python benchmarks/tables

real-size: $(READY)
	$(BIN)/python benchmarks/real_size.py

ui: $(READY)
	@mkdir -p demo
	@cd demo && $(BIN)/saddle ui

# hatchling and editables build the package in the environment itself, so that no build asks a registry again.
lock:
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install --quiet '.[dev]' hatchling editables
	( echo '# Everything that the Makefile installs, at the versions that the tests passed with. Made by `make lock`.' && \
	  echo "# The lines with a marker serve torch's CUDA build; a CPU build of torch runs without them." && \
	  build/lock/bin/pip freeze --all --exclude pip --exclude saddlepoint | \
	  sed -E '/^(cuda|nvidia)-|^triton=/ s/$$/ ; $(CUDA)/' ) > build/requirements.lock
	mv build/requirements.lock requirements.lock

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
