# The commands of this repository. CI calls the same ones: see .ci/run.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
export NO_MKDOCS_2_WARNING := 1
PYTEST_ARGS ?=
TORTURE_ROUNDS ?= 1000
BENCHMARKS ?= throughput start recovery memory admission watches imports store
BENCH_ARGS ?=

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- environment

.venv/.demo-installed: requirements/local.txt requirements/bootstrap.txt pyproject.toml scripts/make-venv
	@scripts/make-venv requirements/local.txt
	@touch $@

# requirements/dev.txt holds all of requirements/local.txt, in the same versions.
.venv/.installed: requirements/dev.txt requirements/bootstrap.txt pyproject.toml scripts/make-venv
	@scripts/make-venv requirements/dev.txt
	@touch .venv/.demo-installed $@

.PHONY: venv
venv: .venv/.installed ## Make .venv with all that development needs

.PHONY: test-needs
test-needs: ## Install what the tests want from the system (as root, with apt)
	scripts/install-test-needs

.PHONY: lock
lock: .venv/.installed ## Write requirements/*.txt anew (LOCK_ARGS=--upgrade)
	scripts/lock $(LOCK_ARGS)

# ---- see it work

.PHONY: demo
demo: .venv/.demo-installed ## A Spark session from a running broker, in under three minutes
	@$(BIN)/python examples/demo.py

# ---- tests

.PHONY: test
test: test-core ## Everything that this machine can run

.PHONY: test-core
test-core: .venv/.installed ## All tests but those of Airflow, Kubernetes and torture
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: .venv/.installed ## Those that start no Spark
	$(BIN)/python -m pytest -m "not slow and not spark" $(PYTEST_ARGS)

.PHONY: torture
torture: .venv/.installed ## The kill -9 loop, long (TORTURE_ROUNDS=1000)
	$(BIN)/python tests/torture/kill_loop.py --rounds $(TORTURE_ROUNDS)

.PHONY: bench
bench: .venv/.installed ## Both sides and the ratio of every speed goal (BENCHMARKS="start imports" BENCH_ARGS=--quick)
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py $(BENCH_ARGS); done

# ---- checks

.PHONY: lint
lint: .venv/.installed ## Style, types, layers, the protocol, spelling, dependencies
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/codespell
	@$(MAKE) --no-print-directory protos-check

.PHONY: format
format: .venv/.installed ## Format, and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# ---- the protocol

.PHONY: protos
protos: .venv/.installed ## Generate the code in protos/ from the .proto files
	scripts/generate-protos

.PHONY: protos-check
protos-check: .venv/.installed ## buf lint, buf breaking, and that the generated code is the .proto files'
	$(BIN)/buf lint
	scripts/check-breaking
	scripts/generate-protos --check

.PHONY: protos-release
protos-release: .venv/.installed ## Make the protocol as it is what later ones may not break
	$(BIN)/buf build --as-file-descriptor-set --exclude-source-info --output protos/released/v1.binpb

# ---- documentation

.PHONY: docs
docs: .venv/.installed ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

.PHONY: docs-serve
docs-serve: .venv/.installed ## Serve it on 127.0.0.1:8000 while writing
	$(BIN)/mkdocs serve --strict

# ---- the rest

.PHONY: dist
dist: .venv/.installed ## Wheel and sdist into dist/
	$(BIN)/uv build --no-build-isolation --python $(BIN)/python

.PHONY: clean
clean: ## Remove all that was made here, the environments too
	rm -rf .venv .venv-protos .cache dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
