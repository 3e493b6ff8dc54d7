# Two commands for newcomers: `make demo` and `make test`. Both build their own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test chaos docs clean

demo: $(VENV)/.demo
	$(BIN)/feedline demo

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

# A thousand schedules of faults, some minutes; `make chaos SEED=17` runs one of them again. Then 50,000 epochs that pass
# through changing worlds.
chaos: $(VENV)/.test
ifdef SEED
	$(BIN)/python tests/engine/processes/chaos.py --seed $(SEED)
else
	$(BIN)/python tests/engine/processes/chaos.py --schedules 1000 --jobs 2
	$(BIN)/python tests/engine/processes/leaks.py --epochs 500 --parents 50
	FEEDLINE_ELASTIC_CASES=50000 $(BIN)/pytest tests/test_elastic.py
endif

docs: $(VENV)/.test
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[cli]'
	touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) docs/_build
