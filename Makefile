# The commands of this repository. CI calls the same ones: see .ci/run.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
export NO_MKDOCS_2_WARNING := 1
PYTEST_ARGS ?=
# Processes, each a file at a time: half of the time of a test goes by in waiting for others, sockets and JVMs.
PARALLEL ?= --numprocesses 3 --dist loadfile
KUBERNETES_TESTS ?= kubernetes and not slow
TORTURE_ROUNDS ?= 1000
ATTACKS ?=
BENCHMARKS ?= throughput start recovery memory admission watches imports store airflow $(if $(KUBECONFIG),kubernetes_start kubernetes)
BENCH_ARGS ?=
# Airflow 2.11 runs on older Pythons only.
AIRFLOW2_BEFORE := 3.13
CLUSTER := python3 -m tools.cluster
# Of the cluster, and how each is built from this tree; $(1): options of the command.
define IMAGES
	$(CLUSTER) image $(1) sparkbroker.test/spark:1 images/spark
	$(CLUSTER) image $(1) sparkbroker.test/broker:1 .
	$(CLUSTER) image $(1) sparkbroker.test/airflow:1 . --file images/airflow/Dockerfile
endef

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- environment

.venv/.demo-installed: requirements/local.txt requirements/bootstrap.txt pyproject.toml scripts/make-venv
	@scripts/make-venv requirements/local.txt
	@touch $@

# requirements/dev.txt holds all of requirements/local.txt, in the same versions.
.venv/.installed: requirements/dev.txt requirements/bootstrap.txt pyproject.toml scripts/make-venv
	@scripts/make-venv requirements/dev.txt
	@touch .venv/.demo-installed $@

.venv-airflow3/.installed: requirements/airflow3.txt requirements/bootstrap.txt pyproject.toml scripts/make-venv
	@scripts/make-venv requirements/airflow3.txt .venv-airflow3
	@touch $@

.venv-airflow2/.installed: requirements/airflow2.txt requirements/bootstrap.txt pyproject.toml scripts/make-venv
	@BEFORE=$(AIRFLOW2_BEFORE) scripts/make-venv requirements/airflow2.txt .venv-airflow2
	@touch $@

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

.PHONY: airflow
airflow: .venv/.demo-installed .venv-airflow3/.installed ## Airflow with the examples and a broker, to look at; Ctrl-C ends all of it
	@.venv-airflow3/bin/python examples/run_airflow.py

# ---- tests

.PHONY: test
test: test-core test-airflow test-kubernetes-most ## Everything that this machine can run; of Kubernetes all but the longest

.PHONY: test-core
test-core: .venv/.installed class-archive ## All tests but those of Airflow, Kubernetes and torture
	$(BIN)/python -m pytest -m "not slow and not kubernetes" $(PARALLEL) $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: .venv/.installed ## Those that start no Spark
	$(BIN)/python -m pytest -m "not slow and not spark and not kubernetes" $(PYTEST_ARGS)

.PHONY: test-airflow
test-airflow: test-airflow3 test-airflow2 ## The Airflow provider, in Airflow 3.3 and in 2.11

.PHONY: test-airflow3
test-airflow3: .venv-airflow3/.installed class-archive ## … in 3.3
	.venv-airflow3/bin/python -m pytest -m "not slow" tests/airflow $(PARALLEL) $(PYTEST_ARGS)

.PHONY: test-airflow2
test-airflow2: ## … in 2.11
	@if BEFORE=$(AIRFLOW2_BEFORE) scripts/make-venv --can; then $(MAKE) --no-print-directory test-in-airflow2; \
	else echo "SKIPPED: all tests in Airflow 2.11"; [ -z "$${CI:-}" ]; fi

.PHONY: test-in-airflow2
test-in-airflow2: .venv-airflow2/.installed class-archive
	.venv-airflow2/bin/python -m pytest -m "not slow" tests/airflow $(PARALLEL) $(PYTEST_ARGS)

.PHONY: class-archive
class-archive: .venv/.installed
	$(BIN)/python -m tests.class_archive

.PHONY: airflow-ends
airflow-ends: .venv-airflow3/.installed .venv-airflow2/.installed class-archive ## Measure docs/reference/airflow-ends.md anew
	WRITE_AIRFLOW_ENDS=1 .venv-airflow3/bin/python -m pytest tests/airflow/test_ends.py $(PYTEST_ARGS)
	WRITE_AIRFLOW_ENDS=1 .venv-airflow2/bin/python -m pytest tests/airflow/test_ends.py $(PYTEST_ARGS)

.PHONY: cluster
cluster: ## A Kubernetes cluster of three nodes on this machine, with the broker on it (root, Go, minutes the first time)
	$(CLUSTER) up >/dev/null
	$(call IMAGES)
	$(CLUSTER) kubectl apply -f tests/cluster/namespaces.yaml
	$(CLUSTER) helm upgrade --install --namespace sparkbroker --values tests/cluster/values.yaml sparkbroker chart
	$(CLUSTER) kubectl -n sparkbroker rollout restart deployment/sparkbroker
	$(CLUSTER) kubectl -n sparkbroker rollout status --timeout=180s deployment/sparkbroker
	@echo; echo "export KUBECONFIG=$$($(CLUSTER) kubeconfig)     # or: $(CLUSTER) kubectl get pods -A"
	@echo "make test-kubernetes"; echo "make cluster-down"

.PHONY: cluster-ahead
cluster-ahead: ## What can be made of it before it is there: its programs, and the images' layers
	$(CLUSTER) build
	$(call IMAGES,--ahead)

.PHONY: cluster-down
cluster-down: ## Stop it; binaries and images are kept
	$(CLUSTER) down

.PHONY: test-kubernetes
test-kubernetes: .venv/.installed ## The tests that need a cluster: KUBECONFIG's, else that of `make cluster` (in CI it is made)
	@config=$${KUBECONFIG:-$$($(CLUSTER) kubeconfig 2>/dev/null || true)}; \
	if [ -z "$$config$${CI:-}" ]; then echo "SKIPPED: all tests on Kubernetes: \`make cluster\` starts one"; exit; fi; \
	if [ -z "$$config" ]; then $(MAKE) --no-print-directory cluster && config=$$($(CLUSTER) kubeconfig) || exit; fi; \
	KUBECONFIG=$$config $(BIN)/python -m pytest -m "$(KUBERNETES_TESTS)" $(PYTEST_ARGS)

.PHONY: test-kubernetes-most
test-kubernetes-most: ## … but for the longest
	@$(MAKE) --no-print-directory test-kubernetes KUBERNETES_TESTS="kubernetes and not slow and not long"

.PHONY: kubernetes-faults
kubernetes-faults: .venv/.installed ## Measure docs/reference/kubernetes-faults.md anew, on the cluster of `make cluster`
	SPARKBROKER_WRITE_FAULTS=1 KUBECONFIG=$$($(CLUSTER) kubeconfig) $(BIN)/python -m pytest tests/kubernetes/test_kube_faults.py tests/kubernetes/test_kube_dead_node.py $(PYTEST_ARGS)

.PHONY: torture
torture: .venv/.installed ## The kill -9 loop, long (TORTURE_ROUNDS=1000), then what one caller can do to others (ATTACKS="headers_only")
	$(BIN)/python tests/torture/kill_loop.py --rounds $(TORTURE_ROUNDS)
	$(BIN)/python -m tests.torture.attacks $(ATTACKS)
	$(BIN)/python -m pytest -m slow tests/faults

.PHONY: bench
bench: .venv/.installed $(if $(filter airflow,$(BENCHMARKS)),.venv-airflow3/.installed) ## Both sides and the ratio of every speed goal (BENCHMARKS="start imports" BENCH_ARGS=--quick)
	@for name in $(BENCHMARKS); do \
	  echo "== $$name"; \
	  if [ $$name = airflow ]; then python=.venv-airflow3/bin/python; else python=$(BIN)/python; fi; \
	  $$python benchmarks/$$name.py $(BENCH_ARGS); \
	done

# ---- checks

.PHONY: lint
lint: .venv/.installed ## Style, types, layers, the protocol, spelling, wording, dependencies
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/codespell
	$(BIN)/python scripts/check-words
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
	rm -rf .venv .venv-airflow2 .venv-airflow3 .venv-protos .cache dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
