# Two commands do all the set-up on a machine that has Python >= 3.11 and make:
#   make demo    environment, install, catalign quickstart
#   make test    environment, install with the dev tools, the whole test suite
#   make fuzz    a minute of coverage-guided fuzzing for each parser of the importer (SECONDS=600 for longer)
#   make docs    the documentation site, into docs/_build; a warning is an error
#   make golden  writes the golden losses anew and prints what changed
#   make dist    builds the source distribution and the wheel, and looks into both
#   make chaos   kills every stage at random moments, goes on, and compares (SECONDS=900, KILLS=50)
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

KILLS ?= 50
FUZZED := csv json_lines literals packed windows tables fewshot values sql rules

.PHONY: demo test check docs fuzz chaos golden dist environment develop clean

demo: environment
	$(BIN)/catalign quickstart --output demo --overwrite

# One process for each core, each computing with one thread: the tests are many and small.
test: develop
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: develop
	@$(PIP) -e '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build

fuzz: SECONDS ?= 60
fuzz: develop
	@$(PIP) -e '.[fuzz]'
	set -e; for target in $(FUZZED); do $(BIN)/python tests/fuzz/run.py $$target $(SECONDS); done

chaos: SECONDS ?= 900
chaos: develop
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.chaos --kills $(KILLS) --seconds $(SECONDS)

golden: develop
	OMP_NUM_THREADS=1 $(BIN)/python tests/golden_losses.py

dist: develop
	@$(PIP) -e '.[release]'
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tests/built_files.py

environment: .venv/installed
develop: .venv/developed

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "catalign needs Python 3.11 or later: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv || { echo "python3-venv is missing: install it first (Debian: apt-get install python3-venv)"; exit 1; }

# torch first: installed alone under the pin it is the build that this machine's index offers, without a second look.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv, a few minutes the first time: torch (1 of 2) ..."
	@$(PIP) torch
	@echo "... catalign and what else it needs (2 of 2)"
	@$(PIP) -e .
	@touch $@

.venv/developed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv, a few minutes the first time: torch (1 of 2) ..."
	@$(PIP) torch
	@echo "... catalign with its development tools (2 of 2)"
	@$(PIP) -e '.[dev]'
	@touch $@ .venv/installed

clean:
	rm -rf .venv demo
