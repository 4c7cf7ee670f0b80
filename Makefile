# What a contributor types; `make help` says it. Needs CPython 3.11 or later and a C compiler. The rest is installed with
# pip into $(VENV), and what is built lies in build/ (and the extension beside the package, for the editable install).

PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
READY = $(VENV)/.ready
# What to test: K is a pattern of pytest's -k, ARGS are further arguments, folders for instance.
K ?=
ARGS ?=
PYTEST = $(PY) -m pytest -q $(if $(K),-k '$(K)') $(if $(CI),-p no:cacheprovider --tb=short --maxfail=100 --reruns 1)
# Seconds and target of `make fuzz`.
S ?= 60
T ?=
# C files for `make format`.
C ?=

SANITIZED = LD_PRELOAD="$$($${CC:-gcc} -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:quarantine_size_mb=4 UBSAN_OPTIONS=print_stacktrace=1
# A build other than the one beside the package stands in front of it.
overlay = PYTHONPATH="$(CURDIR)/build/$(1)$${PYTHONPATH:+:$$PYTHONPATH}"
# What faces C: all but the command line, other projects' suites and what has a target of its own.
C_FACING = $(filter-out $(addprefix tests/,unit cli compat fault soak),$(patsubst %/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))

export CAPICORN_UNIT_BUILD ?= $(CURDIR)/build/unit

.DEFAULT_GOAL := help
.PHONY: help env build test unit asan faults leaks fuzz lint format readme compdb bench clean build-asan build-faults \
	build-release

help:
	@echo "make build              the extension with assertions, beside the package, and an editable install in $(VENV)"
	@echo "make test               everything under tests/ but what takes minutes (ARGS=--slow: that too)"
	@echo "make test K=pattern     the tests whose names match; ARGS=tests/http: a folder"
	@echo "make unit               the C programs of tests/unit, and tests/fuzz over its corpus"
	@echo "make asan               the C-facing tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make faults             tests/fault, in a build in which each fallible call can be made to fail"
	@echo "make leaks              tests/soak: many requests, and memory that stays level"
	@echo "make fuzz T=h1 S=60     a fuzz target of tests/fuzz for that many seconds (clang)"
	@echo "make lint               layers, exported symbols, line lengths; ruff; mypy"
	@echo "make format             ruff's formatter and its fixes; C=csrc/loop/handle.c: clang-format for that file"
	@echo "make readme             the README's table of settings, from the settings"
	@echo "make compdb             compile_commands.json for clangd"
	@echo "make bench              benchmarks/, with a release build (ARGS are its arguments)"
	@echo "make clean              removes what was built; $(VENV) stays"
	@echo "PYTHON=python3.13 VENV=.venv-3.13 make test    with another CPython"

env: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Capicorn needs CPython 3.11 or later, this is " \
		+ sys.version.split()[0] + ": make PYTHON=python3.13 ...")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet 'setuptools>=77' wheel
	CAPICORN_BUILD=debug $(PY) -m pip install --quiet --no-build-isolation --editable '.[test,lint]'
	@touch $(READY)

build: $(READY)
	@CAPICORN_BUILD=debug $(PY) setup.py --quiet build_ext --inplace
	@$(PY) -c 'import capicorn._core'

build-asan build-faults build-release: build-%: $(READY)
	@CAPICORN_BUILD=$* $(PY) setup.py --quiet build --build-lib build/$*

test: build
	$(PYTEST) $(or $(ARGS),tests)

unit: $(READY)
	$(PYTEST) $(or $(ARGS),tests/unit)

asan: build-asan
	$(call overlay,asan) $(SANITIZED) $(PYTEST) $(or $(ARGS),$(C_FACING))

faults: build-faults
	$(call overlay,faults) $(PYTEST) $(or $(ARGS),tests/fault)

leaks: build
	$(PYTEST) $(or $(ARGS),tests/soak)

fuzz: $(READY)
	$(PY) tools/fuzz.py $(or $(T),$(error say which target: make fuzz T=h1 S=60)) $(S)

lint: build
	$(PY) tools/lint.py

format: $(READY)
	$(PY) -m ruff check --fix --quiet . || true
	$(PY) -m ruff format --quiet .
	$(if $(C),$(if $(shell command -v clang-format),clang-format,$(error clang-format: pip install clang-format)) -i $(C))

# Puts the current table of settings into the README.
readme: build
	$(PY) tools/readme.py

compdb: build
	$(PY) tools/compdb.py

bench: build-release
	@test -f benchmarks/__main__.py || { echo "benchmarks/ has nothing to run in this checkout" >&2; exit 1; }
	$(call overlay,release) $(PY) -m benchmarks $(ARGS)

clean:
	rm -rf "$(CURDIR)/build" "$(CURDIR)/dist"
	rm -f "$(CURDIR)"/python/capicorn/_core*.so "$(CURDIR)/compile_commands.json"
