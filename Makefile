# make demo   install into .venv and run the demo: a model split over two nodes
# make test   install into .venv and run the tests
# make late   what takes long for what it tests: compiling for macOS, measuring again
# make check  format, lint, types, import contracts
# make fuzz   100,000 inputs of each kind for what takes others' data, under sanitizers
# make chaos  ten minutes of streams whose nodes are killed, stopped, cut off and slowed
# make faults random faults for workers, MINUTES=60 of them
# make interrupts  commands that are ended at random moments, TRIALS=500 of them

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An editable install knows the Python files that there were: a new one needs a new install.
MODULES := build/modules.txt
NATIVE := $(shell find native cmake -type f) src/bandweave/programs/operations.py CMakeLists.txt pyproject.toml $(MODULES)

.PHONY: demo test late check format cluster exhaustive failures fuzz chaos faults interrupts transformers bench documents clean FORCE

demo: $(VENV)/.installed
	$(BIN)/bandweave demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m parallel -n auto --maxprocesses 8 --dist worksteal
	$(BIN)/python -m pytest -m waiting -n 4
	$(BIN)/python -m pytest -m "not parallel and not waiting and not late"

# Compiles for macOS, too, and measures once more: some five minutes more on two cores.
late: $(VENV)/.dev
	$(BIN)/python -m pytest -m late

check: $(VENV)/.dev
	$(BIN)/ruff format --check src tests training benchmarks cmake
	$(BIN)/ruff check src tests training benchmarks cmake
	$(BIN)/clang-format --dry-run --Werror $$(find native -name '*.h' -o -name '*.cpp')
	$(BIN)/lint-imports
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff format src tests training benchmarks cmake
	$(BIN)/ruff check --fix src tests training benchmarks cmake
	$(BIN)/clang-format -i $$(find native -name '*.h' -o -name '*.cpp')

# Clusters of machines in namespaces, placed by Ray too; needs root. Installs Ray.
cluster: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[dev,cluster]'
	$(BIN)/python -m pytest tests/cluster tests/test_membership.py tests/test_measured_plan.py

# The full product of splits, formats, variants and models; long.
exhaustive: $(VENV)/.dev
	$(BIN)/python -m tests.exhaustive

# Nodes that die and hang in the midst of answers of every kind, for ten minutes.
failures: $(VENV)/.dev
	$(BIN)/python -m tests.exhaustive.failures

# INPUTS of each kind; KINDS="dumps programs" chooses.
INPUTS ?= 100000
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) $(KINDS)
	$(BIN)/python -m tests.fuzz.bodies --inputs $(INPUTS)
	$(BIN)/python -m tests.fuzz.sealed --inputs $(INPUTS)
	$(BIN)/python -m tests.fuzz.door --inputs $(INPUTS)

# CHAOS="--hosts --seed 7" has machines in networks of their own, which needs root, and another story.
SECONDS ?= 600
chaos: $(VENV)/.dev
	$(BIN)/python -m benchmarks.chaos --seconds $(SECONDS) $(CHAOS)

MINUTES ?= 60
faults: $(VENV)/.dev
	$(BIN)/python -m benchmarks.chaos.workers --minutes $(MINUTES) $(FAULTS)

# INTERRUPTS="serve synth:HUP --seed 7" chooses commands, blows and moments.
TRIALS ?= 500
interrupts: $(VENV)/.dev
	$(BIN)/python -m tests.interrupts --trials $(TRIALS) $(INTERRUPTS)

# Makes the stored reference values again with transformers and PyTorch, and compares.
transformers: $(VENV)-transformers/.installed
	PYTHONPATH=src $(VENV)-transformers/bin/python -m tests.transformers_reference.make --check

# bandweave beside llama.cpp and PyTorch on this machine, for docs/performance.md; hours, on a quiet
# machine. EXPERIMENTS="decode links" BENCH_FLAGS="--rounds 20" choose.
EXPERIMENTS ?= all
bench: $(VENV)-bench/.installed
	$(VENV)-bench/bin/python -m benchmarks $(EXPERIMENTS) $(BENCH_FLAGS)

# What the planner says in README.md, docs/planning.md and docs/claims.md, made again.
documents: $(VENV)/.installed
	$(BIN)/python -m benchmarks.plan_documents

$(MODULES): FORCE
	@mkdir -p $(@D)
	@find src -name '*.py' | sort | cmp -s - $@ || find src -name '*.py' | sort > $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("bandweave needs Python 3.11 or newer; this is %d.%d: make PYTHON=python3.x" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# What pip's own error would hide in a page of CMake's.
define require_compiler
	@command -v $${CXX:-c++} >/dev/null || { \
	  echo "bandweave is compiled here, and there is no C++ compiler ($${CXX:-c++}). Install one:"; \
	  echo "  Debian, Ubuntu: apt install g++ python3-dev;  Fedora: dnf install gcc-c++ python3-devel"; \
	  exit 1; }
	@$(BIN)/python -c 'import os, sys, sysconfig; path = sysconfig.get_paths()["include"]; \
	  sys.exit(0 if os.path.exists(path + "/Python.h") else "bandweave is compiled here, and the headers of Python are missing (" + path + "/Python.h). Debian, Ubuntu: apt install python3-dev;  Fedora: dnf install python3-devel")'
endef

$(VENV)/.installed: $(VENV)/bin/python $(NATIVE)
	$(require_compiler)
	@echo "Compiling for this machine and installing into $(VENV): a minute or two, once."
	BANDWEAVE_NATIVE=1 $(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python $(NATIVE)
	$(require_compiler)
	@echo "Compiling for this machine and installing into $(VENV), with the tools for tests."
	BANDWEAVE_NATIVE=1 $(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)-transformers/.installed: tests/transformers_reference/requirements.txt
	$(PYTHON) -m venv $(VENV)-transformers
	$(VENV)-transformers/bin/pip install --quiet -r tests/transformers_reference/requirements.txt
	@touch $@

# llama.cpp is compiled here, for this processor.
$(VENV)-bench/.peers: benchmarks/requirements.txt
	$(PYTHON) -m venv $(VENV)-bench
	CMAKE_ARGS="-DGGML_NATIVE=ON '-DCMAKE_CXX_FLAGS=-include $(CURDIR)/benchmarks/peers/tile_config.h'" \
		$(VENV)-bench/bin/pip install --quiet --no-binary llama-cpp-python -r $<
	@touch $@

$(VENV)-bench/.installed: $(VENV)-bench/.peers $(NATIVE)
	BANDWEAVE_NATIVE=1 $(VENV)-bench/bin/pip install --quiet --editable . --config-settings=build-dir=build/bench
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-transformers $(VENV)-bench build
