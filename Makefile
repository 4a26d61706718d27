# Every command of the project. Plain `make` prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.DEFAULT_GOAL := help
.PHONY: help demo test check fix fuzz bench gpu serve images clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml scripts/make-venv
	@PYTHON=$(PYTHON) VENV=$(VENV) sh scripts/make-venv

demo: $(STAMP) ## a real model up, a smaller and faster one down: offline, under two minutes
	@$(BIN)/planish demo

serve: $(STAMP) ## API, worker and embedded Redis on 127.0.0.1:8000
	@$(BIN)/planish serve

test: $(STAMP) ## all tests, two files at a time
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP) ## format, lint, types and layer walls, in less than a minute
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_layers.py

fix: $(STAMP) ## format and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

fuzz: $(STAMP) ## gates a million times each, 20,000 broken files and 10,000 requests over HTTP (hours)
	@$(BIN)/python -m tests.hostile.fuzz.inprocess --runs 1000000 --out bench/results/fuzz_gates.json
	@$(BIN)/python -m tests.hostile.fuzz.over_http --files 20000 --out bench/results/fuzz_http.json
	@$(BIN)/python -m tests.fuzz.schemathesis_run --json bench/results/fuzz_requests.json

bench: $(STAMP) ## every measurement; figures go to bench/results (needs the shared data, nginx and wrk)
	@for script in bench/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

gpu: ## what needs a CUDA device (uses the Python that has torch with CUDA)
	@PYTHON=$(PYTHON) sh scripts/gpu-tests

images: ## build the container images with buildah (minutes, as root)
	@sh scripts/images

clean: ## remove the environment and all caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
