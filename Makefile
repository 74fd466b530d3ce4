# Needs Python 3.11 or newer with its venv module, and nothing else. `make help` lists the targets.
#   make demo PYTHON=python3.12 DATA_ROOT=/scratch/apsber    other Python, other place for the data
#   make test PYTEST_ARGS="tests/unit -k receiver"           part of the tests
#   make test TEST_PROCESSES=0                               one test after the other
#   make fuzz FUZZ_ARGS="eiger2 --count 1000"                one parser, fewer cases

VENV ?= .venv
DATA_ROOT ?= data
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
FUZZ_ARGS ?=
EXTRAS := ipython,queue
BIN := $(VENV)/bin
# Of the system, for the tests alone: a browser for the dashboard, and what napari's Qt is linked to.
BROWSERS := chromium chromium-browser
DEBIAN_PACKAGES := chromium libegl1 libgl1 libxkbcommon0 libdbus-1-3
REQUIREMENTS := setup.cfg pyproject.toml constraints.txt

# The first Python that is new enough; on some machines python3 is older than python3.11.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif

# Without bytecode each process compiles the dependencies anew: half a minute per start.
unexport PYTHONDONTWRITEBYTECODE
# The environment is the one that is made here, not one that somebody activated or pointed to.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
# The first browser of this machine; empty where there is none.
HAS_BROWSER := $(firstword $(foreach b,$(BROWSERS),$(shell command -v $(b) 2>/dev/null)))
.PHONY: help install demo test browser lint fuzz clean
.DELETE_ON_ERROR:

help:
	@echo "make install  install into $(VENV), with IPython and the queue"
	@echo "make demo     install, and take a tomography scan at the simulated beamline"
	@echo "make test     install the test tools and run the checks and all tests"
	@echo "make lint     the checks alone: ruff, mypy, import contracts"
	@echo "make fuzz     every parser under fuzz, 100000 cases in each of two ways; an hour or more"
	@echo "make clean    remove $(VENV) and everything that tools have written; the data stay"

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/apsber demo --data-root "$(DATA_ROOT)"

test: lint browser
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --durations=15 $(PYTEST_ARGS)

# Without one, the tests of the dashboard's page are skipped and say so.
browser:
ifeq ($(HAS_BROWSER),)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing $(DEBIAN_PACKAGES)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends $(DEBIAN_PACKAGES) >/dev/null; \
	else \
		echo "make: no Chromium here; the page is not tested. As root: apt-get install $(DEBIAN_PACKAGES)" >&2; \
	fi
endif

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python tests/fuzz/fuzz_all.py --folder build/fuzz $(FUZZ_ARGS)

clean:
	rm -rf "$(VENV)" build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or newer; say which with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is not Python 3.11 or newer; say which with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv "$(VENV)"

# The bytecode is compiled by all cores at once, where pip would do it on one. Some packages carry
# templates that are no Python, so the exit status of compileall says nothing.
define install
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[$(1)]'
	PYTHONWARNINGS=ignore $(BIN)/python -m compileall -qq -j0 "$(VENV)/lib" src plans callbacks profiles || true
	touch $@
endef

$(VENV)/.installed: $(REQUIREMENTS) | $(BIN)/python
	@echo "installing into $(VENV), a few minutes the first time"
	$(call install,$(EXTRAS))

$(VENV)/.installed-test: $(REQUIREMENTS) | $(BIN)/python
	@echo "installing the test tools into $(VENV)"
	$(call install,test)
	touch $(VENV)/.installed

$(VENV)/.installed-fuzz: $(VENV)/.installed-test
	@echo "installing what the fuzz is guided by"
	$(call install,fuzz)
