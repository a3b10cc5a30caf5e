# Each target sets up what it needs in .venv and is quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Real CTs for the tests are not part of the repository; tests that need them skip where this folder is absent.
TEST_DATA := $(wildcard ../shared/data)
ifneq ($(TEST_DATA),)
export VISTA3D_TEST_DATA ?= $(abspath $(TEST_DATA))
endif

.PHONY: demo pictures model test test-all lint format bench bench-click bench-training bench-memory clean

demo: $(VENV)/.run
	$(BIN)/vista3d demo --output demo

# The README's pictures, drawn anew.
pictures: demo
	$(BIN)/python -c "from PIL import Image; \
	[Image.open(f'demo/{source}.png').convert('RGB').reduce(2).save(f'Resources/Screenshots/{name}.png', optimize=True) \
	for source, name in (('abdomen', 'demo'), ('abdomen_correction', 'correction'))]"

# Two processes at a time: each takes up to 3 GB. What measures time or memory runs after the others, by itself.
PYTEST := $(BIN)/python -m pytest
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) --numprocesses 2 --dist loadscope

test: $(VENV)/.test
	$(PARALLEL) -m "not gpu and not slow and not alone"
	$(PYTEST) -m "alone and not gpu and not slow"

test-all: $(VENV)/.test
	$(PYTEST) -m "not gpu"

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test
	$(BIN)/python Testing/Benchmark/beside_reference --what window,everything --repetitions 3 --warmups 1 --output benchmark-report
	$(MAKE) bench-click bench-training bench-memory

bench-click: $(VENV)/.test
	$(BIN)/python Testing/Benchmark/clicking.py

bench-training: $(VENV)/.test
	$(BIN)/python Testing/Benchmark/training_step.py

bench-memory: $(VENV)/.test
	$(BIN)/python Testing/Benchmark/large_volume.py

# The small model anew, from the shared data folders: days on a processor. The same command continues.
model: $(VENV)/.test
	$(BIN)/python Resources/Models/recipes/model.py --shared ../shared --run runs/model

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist demo benchmark-report

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[cpu,preview]"
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[test]"
	touch $@ $(VENV)/.run

$(VENV)/.lint: $(VENV)/.test
	$(PIP) mypy ruff
	touch $@
