# Everything a developer starts. `make help` lists it; nothing needs to be installed before but make and Python 3.11.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run demo test chaos check model bench docs lock format

# Importing from bytecode: a shell that forbids writing it would make every start compile everything again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .shepherd/venv
PYTHON := $(VENV)/bin/python
BOOTSTRAP := @deploy/local/bootstrap.sh

help: ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

run: ## Start everything, with a first pipeline at the first start; Ctrl-C stops it
	$(BOOTSTRAP) run
	@$(PYTHON) -m shepherd.site.local run

demo: ## Start everything, run one real pipeline, show what it did, stop everything
	$(BOOTSTRAP) run
	@$(PYTHON) -m shepherd.site.local demo

test: ## Run the whole test suite, with services of its own; PYTEST="-k word" passes options on, JOBS=1 takes turns
	$(BOOTSTRAP) test
	$(PYTHON) -m pytest --numprocesses $(or $(JOBS),2) --dist loadfile $(PYTEST)

chaos: ## Kill everything at random, with real times: SEED=n ROUNDS=200 MINUTES=90, LONG=1 for rows of 40 minutes
	$(BOOTSTRAP) test
	@until=$$(( $$(date +%s) + 60 * $(or $(MINUTES),90) )); status=0; \
	$(PYTHON) -m tests.faults.chaos $(if $(SEED),--seed $(SEED)) --rounds $(or $(ROUNDS),200) \
		--minutes $(or $(MINUTES),90) || status=1; \
	FAULTS_FULL=1 FAULTS_UNTIL=$$until $(PYTHON) -m pytest tests/faults tests/faults/real_times.py $(PYTEST) || status=1; \
	exit $$status

check: ## Format, lint, types, import contracts, migrations
	$(BOOTSTRAP) check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy manage.py tests --exclude tests/acceptance/projects/ --exclude tests/faults/projects/
	MYPYPATH=src:projects/generic_transformations $(VENV)/bin/mypy projects code_templates
	$(VENV)/bin/lint-imports
	SHEPHERD_ENV_FILE= $(PYTHON) manage.py makemigrations --check --dry-run

model: ## Explore more interleavings than the tests do; takes minutes, and prints how many states there are
	$(BOOTSTRAP) test
	$(PYTHON) -m tests.model

bench: ## Measure every claim, beside the peers
	$(BOOTSTRAP) test
	@for file in bench/[a-z]*.py; do echo "== $$file"; $(PYTHON) "$$file" || exit 1; done

docs: ## Check that every link between the documents leads somewhere
	$(BOOTSTRAP) check
	$(PYTHON) -m pytest tests/unit/docs

lock: ## Choose the newest versions that fit together, and pin them in requirements.lock
	$(BOOTSTRAP) check
	$(VENV)/bin/uv pip compile --quiet --upgrade --all-extras --no-header --no-annotate --python-version 3.11 \
		--output-file requirements.lock pyproject.toml

format: ## Format, and repair what the linter can repair
	$(BOOTSTRAP) check
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix
