# Everything that one does with this project. `make` alone lists it.
# What is needed beforehand: Linux, Python 3.11 with its venv module, and make.

PYTHON311 ?= python3.11
# One more than there are cores of the smallest machine: the tests with faults mostly wait.
WORKERS ?= 3
MINUTES ?= 10
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo up test faults check lint format types contracts bench train replay record lock clean softhsm faketime chromium

help: ## list the targets
	@grep -E '^[a-z.]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-10s %s\n", $$1, $$2 }'

demo: $(INSTALLED) softhsm ## start everything, play payments through the API, stop again
	@$(BIN)/durapay demo

up: $(INSTALLED) softhsm ## start everything and keep it running until Ctrl-C
	@$(BIN)/durapay up

test: $(INSTALLED) softhsm faketime chromium ## all tests, on real servers
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -q

faults: $(INSTALLED) softhsm ## disasters at random for MINUTES (10), under a random SEED or a given one
	$(BIN)/python -m tests.faults.kit --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

check: lint types contracts ## lint, types and import contracts

lint: $(INSTALLED) ## ruff, as linter and formatter
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(INSTALLED) ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy

contracts: $(INSTALLED) ## who may import whom
	$(BIN)/lint-imports

bench: $(INSTALLED) softhsm ## figures, each beside a floor measured in the same run
	$(BIN)/python -m benchmarks

train: $(INSTALLED) ## train the fraud model anew
	$(BIN)/python -m fraud.training

replay: $(INSTALLED) ## replay recorded workflow histories on this code
	$(BIN)/pytest -q tests/replay

record: $(INSTALLED) softhsm ## record the workflow histories anew, after a change of the workflows
	$(BIN)/python -m tests.replay.record

lock: $(INSTALLED) ## choose the newest allowed dependencies and lock them with their hashes
	$(BIN)/uv pip compile pyproject.toml --upgrade --python-version 3.11 $(LOCK) -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --upgrade --python-version 3.11 $(LOCK) --all-extras -o requirements-dev.txt

LOCK := --quiet --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

.env: ## fresh secrets for docker compose (a file that is there stays)
.env: | $(INSTALLED)
	@umask 077 && $(BIN)/python -m embedded.compose_env >.env.draft && mv .env.draft .env

clean: ## delete the virtual environment and all caches; the stack's data goes with `durapay reset`
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements-dev.txt pyproject.toml
	@$(PYTHON311) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'Python 3.11 with its venv module is needed. On Debian: apt-get install python3.11 python3.11-venv' >&2; exit 1; }
	$(PYTHON311) -m venv .venv
	@echo 'Installing the locked dependencies, databases and Temporal included; this takes a minute or two.'
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

# The HSM of development and tests is a system package; everything else comes from the lock file.
softhsm:
	@$(PYTHON311) -m embedded.softhsm >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ]; then root=''; \
	elif sudo -n true 2>/dev/null; then root='sudo -n'; \
	else echo 'SoftHSM is needed. Run: sudo apt-get update && sudo apt-get install -y softhsm2' >&2; exit 1; fi; \
	$$root apt-get update -q && $$root apt-get install -y -q --no-install-recommends softhsm2 && \
	$(PYTHON311) -m embedded.softhsm

# The faults move the clock of running processes with it.
faketime:
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ]; then root=''; \
	elif sudo -n true 2>/dev/null; then root='sudo -n'; \
	else echo 'libfaketime is needed. Run: sudo apt-get update && sudo apt-get install -y libfaketime' >&2; exit 1; fi; \
	$$root apt-get update -q && $$root apt-get install -y -q --no-install-recommends libfaketime

chromium:
	@command -v chromium >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ]; then root=''; \
	elif sudo -n true 2>/dev/null; then root='sudo -n'; \
	else echo 'Chromium is needed. Run: sudo apt-get update && sudo apt-get install -y chromium' >&2; exit 1; fi; \
	$$root apt-get update -q && $$root apt-get install -y -q --no-install-recommends chromium && \
	command -v chromium >/dev/null
