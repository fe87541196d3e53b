# One verb per chore. `make demo` and `make test` need only Python >= 3.11, a C++ compiler and a package registry.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --progress-bar off
DEMO_DATA ?= datasets/demo
DEMO_CONFIG ?= configs/lst/demo.yaml
OPTS ?=

.PHONY: help setup setup-dev demo demo-forgetting test test-docs test-slow test-gpu chaos chaos-damage fuzz sanitize lint format cuda-check clean
.DELETE_ON_ERROR:

help:
	@echo "make demo             set up, make the demo data, train base and new classes in phases, report"
	@echo "make demo-forgetting  the same without replay and distillation, for comparison"
	@echo "make test             set up, run the tests"
	@echo "make test-docs        run every command of README.md and docs/ in a small world"
	@echo "make test-slow        the tests that take longer;  make test-gpu: those that need a GPU"
	@echo "make chaos            kill a small run 50 times at random moments and compare it with an unbroken one"
	@echo "make chaos-damage     damage every file of a small run in many ways, run it again and compare"
	@echo "make fuzz             give 40,000 damaged files of all kinds to the readers (10 minutes)"
	@echo "make sanitize         the native operations under the address and undefined-behaviour sanitizers"
	@echo "make lint | format    ruff, clang-format, mypy | rewrite files in the project's format"
	@echo "make cuda-check       compile every CUDA kernel (needs nvcc, no GPU)"
	@echo "make clean            remove the virtual environment and build results"

$(VENV)/.runtime: requirements.txt
	@echo "[1/3] virtual environment in $(VENV), pinned packages (a few minutes the first time)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.package: $(VENV)/.runtime setup.py pyproject.toml $(wildcard csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu)
	@echo "[2/3] native operations and the package"
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.package requirements-dev.txt requirements-reference.txt
	@echo "[3/3] test and lint packages"
	@$(PIP) -r requirements-dev.txt
	@$(PIP) --no-deps -r requirements-reference.txt
	@touch $@

setup: $(VENV)/.package
setup-dev: $(VENV)/.dev

demo: setup
	$(PY) -m maskrcnn_benchmark.data.datasets.demo --out $(DEMO_DATA)
	$(PY) tools/train_net.py --config-file $(DEMO_CONFIG) $(OPTS)

demo-forgetting: setup
	$(PY) -m maskrcnn_benchmark.data.datasets.demo --out $(DEMO_DATA)
	$(PY) tools/train_net.py --config-file $(DEMO_CONFIG) OUTPUT_DIR runs/demo_forgetting \
	    LST.REPLAY.ENABLED False LST.DISTILL.ENABLED False $(OPTS)

test: setup-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 $(OPTS)

test-docs: setup-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -m docs tests/meta $(OPTS)

test-slow: setup-dev
	$(PY) -m pytest -m slow $(OPTS)

chaos: setup-dev
	$(PY) tests/chaos/campaign.py --kills 50 $(OPTS)

fuzz: setup-dev
	OMP_NUM_THREADS=1 $(PY) tests/fuzz/campaign.py $(OPTS)

chaos-damage: setup-dev
	$(PY) tests/chaos/damage.py $(OPTS)

test-gpu: setup-dev
	$(PY) -m pytest -m gpu $(OPTS)

# Only our library is instrumented: torch is not, so leaks are not looked for. A failed allocation is an answer.
SANITIZED := build/sanitized/lib
SANITIZE_TESTS ?= tests/layers tests/evaluation tests/structures
sanitize: setup-dev
	MRB_SANITIZE=1 FORCE_CUDA=0 $(PY) setup.py build_ext --build-lib $(SANITIZED)
	env LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:exitcode=99 \
	    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    MRB_NATIVE_FOLDER=$(CURDIR)/$(SANITIZED)/maskrcnn_benchmark MRB_FUZZ_SETS=1000 OMP_NUM_THREADS=1 \
	    $(PY) -m pytest -p no:faulthandler -n 2 -m "not gpu and not docs" $(SANITIZE_TESTS) $(OPTS)

lint: setup-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.h' 'csrc/*.cuh')
	$(PY) -m mypy

format: setup-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $$(git ls-files 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.h' 'csrc/*.cuh')

cuda-check: setup
	$(PY) setup.py check_cuda

clean:
	rm -rf $(VENV) build dist *.egg-info maskrcnn_benchmark/_C*.so
