# Each target sets up .venv by itself, with the versions of constraints.txt, which are the ones that are tested.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench gpu

help:  ## print this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

demo: $(INSTALLED)  ## vocode the embedded clip into demo.wav and demo.png
	$(BIN)/fastvoc demo --out .

# Two processes with one thread each: the tests are many and small, and the machines that run them have two cores.
test: $(INSTALLED)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

lint: $(INSTALLED)  ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## measure operators, vocoders and training against their peers
	$(BIN)/pytest benchmarks/

gpu: $(INSTALLED)  ## test and measure on a CUDA machine
	PATH="$(CURDIR)/$(BIN):$$PATH" bash benchmarks/gpu.sh

$(INSTALLED): pyproject.toml constraints.txt setup.py $(shell find csrc -type f)
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
