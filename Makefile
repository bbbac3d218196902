# KAD needs git, make and Python 3.11, 3.12 or 3.13; everything else is fetched into .venv, in the versions of the lock files.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first Python that will do; PYTHON=/path/to/python overrides.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; \
	then echo "$$name"; break; fi; done)

PIP := -m pip --disable-pip-version-check --quiet --no-input
BIN := .venv/bin
JOBS ?= 2
ARGS ?=

.PHONY: help
help: ## This list
	@echo "make demo           a simpul and four forums on this machine, shown step by step"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / && !/^demo:/ { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- to use ---

.PHONY: demo
demo: .venv/.runtime ## a simpul and four forums on this machine, shown step by step
	@$(BIN)/kad demo $(ARGS)

.PHONY: install
install: .venv/.runtime ## make .venv with what KAD needs to run

.PHONY: wheel
wheel: .venv/.runtime ## build the wheel into dist/
	@echo "Building the wheel ..."
	@$(BIN)/python $(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

# --- to develop ---

.PHONY: dev
dev: .venv/.dev .venv-proto/.done ## make .venv and .venv-proto with what the tests and checks need

.PHONY: test
test: .venv/.dev .venv-proto/.done ## run the tests (ARGS="-k merkle" narrows, JOBS=1 runs them in order)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -rs -m "not long" $(ARGS)

.PHONY: test-long
test-long: .venv/.dev .venv-proto/.done ## run the long tests: whole federations, attacked, killed, recovered, bridged
	@$(BIN)/python -m pytest -n $(JOBS) --dist load -rs -m long $(ARGS)

.PHONY: check
check: check-style check-types check-imports check-stubs check-protos check-messages ## everything that is checked without running KAD

.PHONY: check-style
check-style: .venv/.dev
	@echo "ruff: style and formatting"
	@$(BIN)/ruff check --quiet --output-format concise
	@$(BIN)/ruff format --check --quiet --output-format concise || { echo "run: make format"; exit 1; }

.PHONY: check-types
check-types: .venv/.dev
	@echo "mypy: types"
	@$(BIN)/mypy --no-error-summary

.PHONY: check-imports
check-imports: .venv/.dev
	@echo "import-linter: who may import whom"
	@$(BIN)/lint-imports --no-cache > .import-linter.out 2>&1 || { cat .import-linter.out; rm -f .import-linter.out; exit 1; }
	@rm -f .import-linter.out

.PHONY: check-stubs
check-stubs: .venv-proto/.done
	@echo "stubs: same as what proto/ generates"
	@.venv-proto/bin/python tools/generate_protos.py --check

.PHONY: check-protos
check-protos:
	@tools/lint_protos.sh

.PHONY: check-messages
check-messages: .venv/.dev
	@echo "messages: every sentence has its Indonesian one"
	@$(BIN)/python tools/messages.py --check

.PHONY: bench
bench: .venv/.dev ## what witnessing and authority cost, on this machine (QUICK=1: under three minutes); see docs/performance.md
	@$(BIN)/python -m tools.bench $(if $(QUICK),--quick) $(ARGS)

.PHONY: format
format: .venv/.dev ## put the code into its format, mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet

.PHONY: proto
proto: .venv-proto/.done ## generate kad_protocol/v1 from proto/
	@.venv-proto/bin/python tools/generate_protos.py

.PHONY: messages
messages: .venv/.dev ## collect the sentences to translate, compile the catalogue
	@$(BIN)/python tools/messages.py

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: lock
lock: .venv/.dev ## resolve the dependencies anew (ARGS=--upgrade takes the newest)
	@echo "Resolving ..."
	@$(LOCK) $(ARGS) pyproject.toml -o requirements.lock
	@$(LOCK) $(ARGS) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	@$(LOCK) $(ARGS) --group pyproject.toml:build -c requirements-dev.lock -o tools/requirements-build.lock
	@$(LOCK) $(ARGS) --group pyproject.toml:proto -o tools/requirements-proto.lock

.PHONY: clean
clean: ## remove what make and the tools made, virtual environments included
	@rm -rf .venv .venv-proto node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import-linter.out
	@find kad_node kad_protocol kad_simpul tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# --- virtual environments; the stamp in each says which lock it was made from ---

define need_python
	@if [ -z "$(PYTHON)" ]; then \
		echo "KAD needs Python 3.11, 3.12 or 3.13, and none was found. Install one (Debian: apt-get install python3 python3-venv)," >&2; \
		echo "or name it: make PYTHON=/path/to/python3.11" >&2; exit 69; fi
	@if ! "$(PYTHON)" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
		echo "$(PYTHON) cannot make a virtual environment: its venv module is missing. Install it (Debian: apt-get install python3-venv)." >&2; exit 69; fi
endef

.venv/.created:
	$(need_python)
	@echo "Making a virtual environment in .venv with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.runtime: requirements.lock tools/requirements-build.lock pyproject.toml | .venv/.created
	@echo "Fetching the $$(grep -c == requirements.lock) libraries that KAD needs; the first time this takes a minute or so ..."
	@$(BIN)/python $(PIP) install --require-hashes -r requirements.lock -r tools/requirements-build.lock
	@echo "Installing KAD itself into .venv ..."
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
	@echo "Ready."

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "Fetching what the tests and checks need ..."
	@$(BIN)/python $(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

.venv-proto/.created:
	$(need_python)
	@echo "Making a virtual environment in .venv-proto for the generator of the stubs ..."
	@$(PYTHON) -m venv .venv-proto
	@touch $@

.venv-proto/.done: tools/requirements-proto.lock | .venv-proto/.created
	@echo "Fetching the generator of the stubs ..."
	@.venv-proto/bin/python $(PIP) install --require-hashes -r tools/requirements-proto.lock
	@touch $@
