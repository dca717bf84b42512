# Every target sets up .venv first. PYTHON names the interpreter for it: make PYTHON=python3.12 repro
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
UNFINISHED := .venv/.unfinished
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
STRIP := $(BIN)/nbstripout --keep-id --extra-keys metadata.language_info.version
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
TESTS = $(IN_VENV) OMP_NUM_THREADS=1 pytest -q -n 2 --dist worksteal --durations 10
USABLE := grep -qs "$(CURDIR)/$(BIN)/python" $(BIN)/pip \
	&& $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))'

# A copied or moved folder, or an interpreter that is gone, makes the environment stale.
ifneq "$(shell { cat $(READY); $(BIN)/python -c 'print(1)'; } 2>/dev/null; true)" "$(CURDIR) 1"
$(shell rm -f $(READY))
endif

# Stages and tests start many processes; compiling our modules would cost a second in each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env note repro study report bench bench-gpu test test-slow lint typecheck pytest format lab constraints clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20

# In a folder without git (a zip download) DVC only works if its settings declare this.
GIT := { [ -e .git ] || git rev-parse --git-dir; } >/dev/null 2>&1
NO_GIT := grep -qs no_scm .dvc/config.local

note:
	@$(GIT) || $(NO_GIT) || echo "note: no git here (a zip?): repro works, but ticketlab verify and compare and dvc exp need a git clone"

env: note $(READY) ## make .venv from pyproject.toml with the exact versions of constraints.txt
	@if $(GIT); then ! $(NO_GIT) || $(BIN)/dvc config --local --unset core.no_scm; \
		else $(NO_GIT) || $(BIN)/dvc config --local core.no_scm true; fi

# The stamp is removed first and written last. An interrupted set-up is repeated from the start; after
# a failed one (no network) pip has undone its changes, and the next make continues from there.
$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no interpreter $(PYTHON), name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than Python 3.11, name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "env: installing pinned versions into .venv (several GB and minutes the first time)"
	@if [ -f $(UNFINISHED) ] || ! { $(USABLE); } 2>/dev/null; then "$(PYTHON)" -m venv --clear .venv; fi
	@rm -f $(READY) && touch $(UNFINISHED)
	@trap 'exit 130' INT TERM; $(INSTALL) --constraint constraints.txt --editable '.[dev]' \
		|| { rm -f $(UNFINISHED); exit 1; }
	@rm -f $(UNFINISHED) && echo "$(CURDIR)" > $(READY)

repro: env ## run the stages that are out of date, of the studies in params.yaml (default: desk)
	@$(IN_VENV) sh -c 'ticketlab repro && ticketlab claims'

study: env ## run another study from studies/: make study STUDY=cifar10
	@$(IN_VENV) sh -c 'ticketlab study add "$(STUDY)" && ticketlab repro $$(ticketlab study stages "$(STUDY)") \
		&& ticketlab claims "$(STUDY)"'

report: env ## the documentation site in site/: findings, claims, notebooks, guides, API
	@$(BIN)/ticketlab report

bench: env ## compare our speed with the peers' loops on one CPU core: benchmarks/results/ (10 minutes; CASES="lenet ..." for some)
	@OMP_NUM_THREADS=1 KINETO_LOG_LEVEL=99 $(BIN)/python -m benchmarks cpu $(CASES)

bench-gpu: env ## the same on a GPU
	@$(BIN)/python -m benchmarks gpu

test: lint typecheck pytest ## run linters, type checks and the test suite (about 7 minutes on 2 cores)

test-slow: env ## run the tests marked slow (.ci/run runs both)
	@echo "test-slow: the slow tests on 2 processes"
	@$(TESTS) -rs -m slow

lint: env ## check code and notebooks with ruff, imports, spelling, and that notebooks have no outputs
	@echo "lint: ruff, import-linter, codespell, nbstripout"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "error: not formatted, run: make format" >&2; exit 1; }
	@$(BIN)/lint-imports --no-logo > .venv/imports 2>&1 || { cat .venv/imports >&2; exit 1; }
	@$(BIN)/codespell
	@$(if $(NOTEBOOKS),$(STRIP) --verify $(NOTEBOOKS))

typecheck: env ## check types with mypy
	@echo "typecheck: mypy"
	@$(BIN)/mypy --no-error-summary

pytest: env ## run the test suite and list its ten slowest tests
	@echo "pytest: the suite on 2 processes, without the slow tests"
	@$(TESTS) -m "not slow"

format: env ## apply ruff's fixes and format, and strip notebooks
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .
	@$(if $(NOTEBOOKS),$(STRIP) $(NOTEBOOKS))

lab: env ## open JupyterLab in notebooks/
	@$(IN_VENV) ticketlab pinned jupyter lab notebooks

constraints: ## update constraints.txt to the newest versions in a new .venv; then run make test
	@echo "constraints: installing the newest versions into a fresh .venv"
	@"$(PYTHON)" -m venv --clear .venv && $(INSTALL) --editable '.[dev,browser]'
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --disable-pip-version-check --exclude-editable; } > .venv/constraints
	@mv .venv/constraints constraints.txt && echo "$(CURDIR)" > $(READY)

clean: ## remove caches and smoke results (never results, data or the environment)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis results/smoke results/*/.[!.]* build dist
	@find ticketlab tests -name __pycache__ -type d -prune -exec rm -rf {} +
