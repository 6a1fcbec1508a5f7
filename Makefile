# Guanmo 莞模. `make help` lists the targets.
PYTHON ?= python3.11
ifeq (, $(shell command -v $(PYTHON) 2>/dev/null))
PYTHON := python3
endif
VENV := .venv/bin
DATA ?=
DETACH ?=

.PHONY: help setup setup-tests demo test test-fast lint types bench status down clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install everything into .venv and build the pages
	@$(PYTHON) -m hub.install

setup-tests: ## set-up plus Chromium and fonts for the browser tests
	@$(PYTHON) -m hub.install --tests

demo: ## the whole journey for real; DETACH=1 returns with it running; DATA=PATH runs it on your work orders
	@$(PYTHON) -m hub.install --demo
	@$(VENV)/guanmo demo $(if $(DETACH),--detach) $(if $(DATA),--data "$(DATA)")

test: setup-tests lint types ## set-up, style, types and all tests, real engines included
	@$(VENV)/python -m pytest

test-fast: ## the tests that start no engine
	@$(VENV)/python -m pytest -m "not engine"

lint: ## style
	@$(VENV)/ruff check . && $(VENV)/ruff format --check .

types: ## strict type checking
	@$(VENV)/mypy

bench: ## measure the figures that the README quotes (the demo must be running: make demo DETACH=1)
	@$(VENV)/python -m benchmarks.journey

status: ## show each process
	@$(VENV)/guanmo status

down: ## stop everything
	@$(VENV)/guanmo down

clean: ## remove the environment and the built pages (not var/)
	@rm -rf .venv marketplace_ui/static/dist marketplace_ui/assets/node_modules
