# modeltiers. `make help` lists the targets; each sets up what it needs by itself and is quick the second time.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# So many files of tests run at once, each with a control plane of its own where it needs one; JOBS=0: one by one.
JOBS ?= 3
PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder
export PYTHONPATH := operator:.

.PHONY: help docs setup tools demo demo-distill test check lint unit router-test cluster-test train-test bench e2e router-e2e fuzz soak generate golden lock audit dist images clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## virtual environment with the locked packages
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("modeltiers needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "setup: virtual environment in $(VENV), packages from requirements/dev.txt with their hashes checked"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

tools: setup ## etcd, Kubernetes and kwok, built from pinned Go modules (minutes the first time)
	@$(BIN)/python -m e2e.cluster build

demo: setup ## operator, tiers, a policy and answers on a real node; KEEP=1 leaves it running, CONTEXT=name uses your cluster, FAKE=1 needs no root
	@$(BIN)/python -m e2e.demo $(if $(KEEP),--keep) $(if $(CONTEXT),--context $(CONTEXT)) $(if $(FAKE),--fake)

demo-distill: setup ## a DistillJob from kubectl apply to a promoted student on a real node, a refusal, and the way back
	@$(BIN)/python -m e2e.distill $(if $(KEEP),--keep)

test: check ## all checks and tests of a change; what CI runs

check: lint unit router-test train-test cluster-test ## what must hold before a commit: about 20 minutes on two cores once tools and trainer are there

lint: setup ## generated files, formatting, types, floors
	@echo "lint: generated files match the code" && $(BIN)/modeltiers generate --check
	@echo "lint: ruff" && $(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@echo "lint: bandit, zizmor" && $(BIN)/bandit --quiet --recursive operator --configfile pyproject.toml && $(BIN)/zizmor --offline --pedantic --quiet --no-progress .github/workflows
	@echo "lint: mypy --strict" && $(BIN)/mypy --no-error-summary
	@echo "lint: pages" && $(BIN)/sphinx-build -q -W --keep-going -d .state/docs/trees docs .state/docs/site
	@echo "lint: floors" && $(BIN)/lint-imports --no-logo > .import-linter.log || { cat .import-linter.log; exit 1; }

unit: setup ## pure tests, under two minutes
	@$(BIN)/python -m pytest tests/unit tests/engine tests/distill -q -m "not slow" $(PARALLEL)

router-test: setup ## the router against real sockets; dashboards and alerts against a real Prometheus (built the first time); the threat model
	@$(BIN)/python -m pytest tests/router tests/monitoring tests/security -q -m "not slow" $(PARALLEL)

cluster-test: setup tools ## tests on a real control plane, and of the store on a real S3 server
	@rm -rf .state/rights && mkdir -p .state/rights
	@$(BIN)/python -m pytest tests/cluster tests/store -q -m "not slow" $(PARALLEL) --rights=.state/rights --ignore=tests/cluster/test_rights.py
	@$(BIN)/python -m pytest tests/cluster/test_rights.py -q --rights=.state/rights

train-test: setup ## the trainer in an environment of its own (the first run installs torch: minutes, up to 6 GB)
	@$(BIN)/python -m e2e.train test tests/train -q -m "not slow"

docs: setup ## the site, from docs/ into .state/docs/site
	@$(BIN)/sphinx-build -q -W --keep-going -d .state/docs/trees docs .state/docs/site && echo ".state/docs/site/index.html"

bench: setup tools ## ratios: the operator against a bare client and with 500 policies, the router against nginx and haproxy, Generate against httpx
	@$(BIN)/python -m e2e.bench
	@$(BIN)/python -m e2e.bench.policies
	@$(BIN)/python -m e2e.bench.router
	@$(BIN)/python -m e2e.bench.generate
	@$(BIN)/python -m e2e.bench.gate --check

e2e: setup tools ## the slow and real tests: a real node with real vLLM where this machine can run one, with the numbers
	@$(BIN)/python -m pytest tests -q -m slow -rfEsP
	@$(BIN)/python -m e2e.train test tests/train -q -m slow -rfEsP

router-e2e: setup ## the router on two real vLLM tiers, with OpenAI's SDKs and curl (the first run installs vLLM: minutes, 6 GB)
	@$(BIN)/python -m pytest e2e/router e2e/sdk -q

fuzz: setup ## the property tests with many more examples, and a million inputs for the router
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/unit -q -m hypothesis
	@$(BIN)/python -m e2e.fuzz.router --inputs 1000000

soak: setup tools ## ten minutes of tiers that come and go, and ten of the router among failures; all must stay flat
	@$(BIN)/python -m e2e.soak
	@$(BIN)/python -m e2e.soak.router

audit: setup ## every locked package against the advisories of the package index; needs an index that has them
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/audit.txt
	@for file in operator router distill train dev audit; do $(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off --requirement requirements/$$file.txt; done

dist: setup ## wheel, charts and their checksums in dist/
	@rm -rf dist && $(BIN)/python -m hatchling build -d dist
	@"$$($(BIN)/python -c 'from e2e.cluster.binaries import helm; print(helm())' | tail -1)" package charts/* --destination dist
	@cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

images: setup ## images with their bills of materials in dist/; IMAGES=router for one, PUSH=registry.example.com/modeltiers, BASES=debian without a registry
	@$(BIN)/python -m e2e.containerfile $(IMAGES) $(if $(BASES),--bases $(BASES)) $(if $(PUSH),--push $(PUSH))

generate: setup ## CRDs, manifests and reference pages from the code
	@$(BIN)/modeltiers generate

golden: setup ## rewrite the golden manifests of the examples; review the diff
	@$(BIN)/python -m pytest tests/unit/test_golden.py -q --golden=rewrite

lock: setup ## lock files from pyproject.toml, with hashes and without download addresses
	@$(BIN)/python -m pip install --quiet uv && .ci/lock

clean: ## end the clusters of this checkout; remove what make made in it (not the tool cache)
	@if [ -x $(BIN)/python ] && [ -d .state ]; then for dir in .state/*/; do $(BIN)/python -m e2e.cluster down --state "$$dir" || true; done; fi
	@rm -rf $(VENV) .state .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .import-linter.log
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
