# Everything a developer or a first-time user runs. `make demo` and `make test` set up a virtual environment first.
PYTHON ?= python3
VENV   ?= .venv
# A pinned CPU-friendly torch first: a plain `pip install torch` may pull gigabytes of CUDA libraries.
# For a GPU: `make demo TORCH=torch`.
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-long fuzz lint format bench benchmark docs clean

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

demo: $(READY)  ## render clips, compress them, ask questions, show what was saved
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/tokcli run recipes/demo.yaml

test: $(READY)  ## the test suite without the long tests
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not long" --durations 15

test-long: $(READY)  ## the long tests alone
	$(BIN)/python -m pytest -m long

# How many broken files, and which: the same seed gives the same ones.
N ?= 400
SEED ?= 0

fuzz: $(READY)  ## broken files through whole runs; real ones too where TOKCLI_MEDIA names a folder
	$(BIN)/python tests/fuzz/fuzz.py --count $(N) --seed $(SEED)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## ratios measured side by side in one run
	$(BIN)/python -m bench

benchmark: $(READY)  ## answers kept by every method on the bundled models: writes docs/benchmark.md
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m bench.answers

docs: $(READY)  ## regenerate docs/cli.md, docs/methods.md and docs/models.md from the code
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache
