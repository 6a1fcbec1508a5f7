# Guanmo 莞模. `make help` lists the targets.
PYTHON ?= python3.11
ifeq (, $(shell command -v $(PYTHON) 2>/dev/null))
PYTHON := python3
endif
VENV := .venv/bin
DATA ?=
DETACH ?=

SPLIT ?= val
PLAN ?= usual
# One worker a core, each with whole files, in the order of tests/conftest.py.
WORKERS := -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.PHONY: help setup setup-tests demo test test-fast lint types bench bench-ledger bench-gateway bench-pool bench-finetune \
	bench-maintnorm bench-datasets bench-plans mutants faults-finetune faults-ledger faults-serving city-year status down clean lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install everything into .venv and build the pages
	@$(PYTHON) -m hub.install

setup-tests: ## set-up plus Chromium and fonts for the browser tests
	@$(PYTHON) -m hub.install --tests

demo: ## the whole journey for real; DETACH=1 returns with it running; DATA=PATH runs it on your work orders
	@$(PYTHON) -m hub.install --demo
	@$(VENV)/guanmo demo $(if $(DETACH),--detach) $(if $(DATA),--data "$(DATA)")

# The types are checked beside the first tests, whose engines leave a core free while they start.
test: setup-tests lint ## set-up, style, types and all tests, real engines included
	@mkdir -p var; $(VENV)/mypy > var/types.log 2>&1 & types=$$!; $(VENV)/python -m pytest $(WORKERS); tests=$$?; \
	wait $$types || { cat var/types.log; exit 1; }; exit $$tests

test-fast: ## the tests that start no engine
	@$(VENV)/python -m pytest $(WORKERS) -m "not engine"

lint: ## style
	@$(VENV)/ruff check . && $(VENV)/ruff format --check .

types: ## strict type checking
	@$(VENV)/mypy

bench: ## measure the figures that the README quotes (the demo must be running: make demo DETACH=1)
	@$(VENV)/python -m benchmarks.journey

bench-ledger: ## ratios of the ledger to pgbench and COPY on a private PostgreSQL
	@$(VENV)/python -m benchmarks.ledger

bench-gateway: ## compare the gateway with the engine itself and with LiteLLM
	@$(VENV)/python -m benchmarks.gateway

bench-pool: ## real vLLM: gateway, adapters, merged weights, affinity, hot loads and promotions, as ratios
	@$(VENV)/python -m benchmarks.pool

bench-finetune: ## compare the trainer with TRL and LLaMA-Factory, each in its own environment
	@$(VENV)/python -m benchmarks.finetune

bench-maintnorm: ## error reduction of three companies through the marketplace: DATA=PATH [SPLIT=val] [PLAN=usual]
	@$(VENV)/python -m benchmarks.maintnorm "$(DATA)" --split $(SPLIT) --plan $(PLAN)

bench-datasets: ## memory and rows a second of the data check at a million rows
	@$(VENV)/python -m benchmarks.datasets

bench-plans: ## memory and rows a second of a plan, to a million rows
	@$(VENV)/python -m benchmarks.plans

faults-ledger: ## the fault tests of the money in their long form: every kill in one process, the rest in another
	@FAULTS_LONG=1 $(VENV)/python -m pytest -s tests/faults/test_boundaries.py & kills=$$!; \
	FAULTS_LONG=1 $(VENV)/python -m pytest -s tests/faults --ignore tests/faults/test_boundaries.py; rest=$$?; \
	wait $$kills && exit $$rest

faults-serving: ## kills of gateway, engines and clients under load, hub outages, restarts; each with its figure
	@FAULTS_LONG=1 $(VENV)/python -m pytest -s tests/faults_serving

faults-finetune: ## 1,000 disturbed fine-tunes with the twin trainer and 40 with PEFT; 60 seeded data errors
	@FAULTS_LONG=1 $(VENV)/python -m pytest -s tests/faults_finetune tests/finetune/test_seeded_errors.py

mutants: ## break each money rule on purpose; fails if a mutant survives
	@$(VENV)/python -m tests.mutants

city-year: ## a seeded year of 300 firms, verified from the raw meter to the fen
	@$(VENV)/python -m examples.city_year

status: ## show each process
	@$(VENV)/guanmo status

down: ## stop everything
	@$(VENV)/guanmo down

lock: ## resolve the locked versions anew
	@bash requirements/lock.sh

clean: ## remove the environment and the built pages (not var/)
	@rm -rf .venv marketplace_ui/static/dist marketplace_ui/assets/node_modules
