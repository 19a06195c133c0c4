# make demo       the demo experiment on the embedded model, in an environment of its own
# make test       the tests that take minutes; make test-all: the slow ones too
# make lint       ruff (lint and format) and mypy
# make install    the environment alone (.venv); done once, again only when requirements.txt changes
.PHONY: demo test test-all lint install
.DEFAULT_GOAL := demo

# Threads that wait must sleep, not spin: beside another busy process spinning makes small models 80 times slower.
export OMP_WAIT_POLICY ?= PASSIVE

VENV := .venv
PYTHON := $(VENV)/bin/python
# One process per core and one file of tests at a time in each; more than four would want too much memory.
PYTEST := $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile -rs --durations=15 -q
INSTALLED := $(VENV)/installed.txt
# The first Python that runs and is new enough; `make BASE_PYTHON=/path/to/python demo` takes another.
BASE_PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

demo: $(INSTALLED)
	@$(PYTHON) -m experiments.run experiment=demo

test: $(INSTALLED)
	$(PYTEST) -m "not slow"

test-all: $(INSTALLED)
	$(PYTEST)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

install: $(INSTALLED)

# The stamp holds the requirements that are installed: a second call, or a mere `touch`, installs nothing.
# uv takes a minute where pip takes five, but it does not read pip's configuration: where only pip knows the
# way to the package registry, pip does it.
$(INSTALLED): requirements.txt
	@test -n "$(BASE_PYTHON)" || { echo "make: no Python 3.11 or newer found; give one with BASE_PYTHON=..." >&2; exit 2; }
	@cmp -s requirements.txt $@ || { set -e; \
		echo "installing requirements.txt into $(VENV) ..." >&2; \
		test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV); \
		PIP="$(PYTHON) -m pip --quiet --disable-pip-version-check install"; \
		if command -v uv >/dev/null 2>&1; then UV=uv; else $$PIP uv || true; UV="$(PYTHON) -m uv"; fi; \
		$$UV pip install --quiet --python $(PYTHON) -r requirements.txt || { \
			echo "uv could not; now with pip, which takes a few minutes ..." >&2; \
			$(PYTHON) -m ensurepip >/dev/null 2>&1 || true; $$PIP -r requirements.txt; }; }
	@cp requirements.txt $@
