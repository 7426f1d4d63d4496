# Each target but gpu sets up .venv by itself, with the versions of constraints.txt, which are the ones that are tested.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUNNABLE := .venv/.runnable

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint mutants bench gpu

help:  ## print this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

demo: $(RUNNABLE)  ## vocode the embedded clip into demo.wav and demo.png, and measure this machine
	@echo "A recording becomes a mel and sound again; then networks are measured, for about ten seconds."
	$(BIN)/fastvoc demo --out .

# Two processes with one thread each: the tests are many and small, and the machines that run them have two cores.
test: $(INSTALLED)  ## run the tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "not slow"

test-all: $(INSTALLED)  ## run all of them: compilers, sanitizers, long searches and runs that are killed, too
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

lint: $(INSTALLED)  ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# BASE=main ALL=1 COUNT=50 SEED=0 MINUTES=60 say what is tried; one process, so that other work goes on beside it.
mutants: $(INSTALLED)  ## put small faults into what has changed since BASE, and see whether the tests notice
	OMP_NUM_THREADS=1 nice $(BIN)/python tools/mutants $(if $(ALL),--all) $(if $(BASE),--base $(BASE)) \
		$(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

bench: $(INSTALLED)  ## measure vocoders, streams, a training step and operators against their peers, in five minutes
	$(BIN)/pytest benchmarks/

# Nothing is installed: such a machine has a PyTorch of its own, and perhaps no network.
gpu:  ## test and measure on a CUDA machine, as it is
	PYTHON="$(if $(wildcard $(BIN)/python),$(CURDIR)/$(BIN)/python,$(PYTHON))" bash benchmarks/gpu.sh

SOURCES := pyproject.toml constraints.txt setup.py $(shell find csrc -type f)

# What the tests and the other tools need, with kernels for every kind of GPU; it serves the demo, too.
$(INSTALLED): $(SOURCES)
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(RUNNABLE) $@

# The package alone, compiled for this machine: its processor, and the GPUs that are in it. GPUs that come later have
# their kernels compiled at first use.
$(RUNNABLE): $(SOURCES)
	@test -x $(BIN)/pip || { echo "Making .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing PyTorch and a dozen libraries, and compiling the kernels for this machine (\"Building editable\")."
	@echo "The first time this takes some minutes: most of them a download, and about one that of the compiler."
	@FASTVOC_CUDA_ARCHITECTURES=$${FASTVOC_CUDA_ARCHITECTURES:-here} \
		$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@
