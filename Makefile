# Heddle: `make demo` and `make test` install what they need, once, into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes of `make test`. More than cores: tests wait much of their time.
WORKERS ?= 3
# The stamp carries a checksum, so that nothing is installed twice, and everything again when it changed.
STAMP := $(VENV)/.installed-$(firstword $(shell cat pyproject.toml constraints.txt | cksum))

# Where it is set, each of a hundred processes that tests start would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test check format bench clean broker faketime

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install Heddle and its tools into .venv

demo: $(STAMP) broker ## Start everything on real recordings: http://127.0.0.1:8000 (Ctrl-C ends it)
	@exec $(BIN)/heddle demo

test: check broker faketime ## Run every check and every test
	$(BIN)/pytest --numprocesses=$(WORKERS) --max-worker-restart=0

check: $(STAMP) ## Check format, lint, types and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure, beside the limits of this machine
	$(BIN)/python -m benchmarks

# Debian's MQTT broker, which the demo and the tests of MQTT talk through. Nobody needs its service.
broker:
	@command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'Installing mosquitto, an MQTT broker ...'; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	      apt-get install -y -qq --no-install-recommends mosquitto; } >/dev/null 2>&1; \
	  fi; \
	} || echo 'Mosquitto is missing (Debian or Ubuntu: sudo apt install mosquitto)' >&2

# Debian's library that sets the clock of one process, for the tests of clocks that jump.
faketime:
	@find /usr/lib /usr/local/lib -path '*/faketime/libfaketime.so.1' 2>/dev/null | grep -q . || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'Installing faketime, which sets the clocks of processes ...'; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends faketime; } >/dev/null 2>&1; \
	  fi; \
	} || echo 'faketime is missing (Debian or Ubuntu: sudo apt install faketime)' >&2

clean: ## Remove .venv, caches and builds (recorded data stays)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Heddle needs Python 3.11 or newer; name one with: make PYTHON=python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'Installing python3-venv, which Debian keeps apart from Python ...'; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; \
	  else \
	    echo 'Python lacks venv. On Debian or Ubuntu: sudo apt install python3-venv' >&2; exit 1; \
	  fi; }
	@echo 'Installing Heddle into $(VENV) (once; a few minutes at most) ...'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input \
	  --constraint constraints.txt --editable '.[server,edge,torch,learning,dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@
