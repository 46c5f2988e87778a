# What a newcomer and CI type. `make demo` needs Python 3.11 or newer with venv; `make test` gets the rest.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3,\
	$(if $(shell $(name) -c 'import sys; print("y" * (sys.version_info >= (3, 11)))' 2>/dev/null),$(name))))

VENV := .venv
BIN := $(VENV)/bin

# pip complains about a cache that it may not write to: a HOME that is missing or someone else's.
PIP := test -O "$$HOME" -a -w "$$HOME" || export PIP_NO_CACHE_DIR=1; \
	PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip install --quiet --no-input -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench bench-peers soak faults systemd venv install account rollback uninstall

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

demo: $(VENV)/.runtime  ## the whole job on a throw-away folder, with a proof at the end
	@$(BIN)/syncd demo

test: $(VENV)/.dev  ## run the tests, but for those of `make systemd`
	@$(BIN)/pytest --ignore=tests/systemd/booted --numprocesses=5 --dist=loadfile --no-loadscope-reorder

check: $(VENV)/.dev  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/.bench  ## measure, beside a bare loop: under ten minutes; BENCH='--only delivery --compare FILE'
	@$(BIN)/python -m tests.benchmarks --json build/bench.json $(BENCH)

bench-peers: $(VENV)/.bench  ## the same work done by other programs, installed into build/peers
	@$(BIN)/python -m tests.benchmarks.peers --json build/bench-peers.json $(BENCH)

soak: $(VENV)/.bench  ## an hour of work, or SOAK=minutes, drawn in build/soak/soak.png
	@$(BIN)/python -m tests.benchmarks.soak --minutes $(or $(SOAK),60)

faults: $(VENV)/.dev  ## try to break the promises, for a quarter of an hour
	@$(BIN)/python -m tests.faults $(FAULTS)

systemd: $(VENV)/.dev  ## test the service under a real systemd, as root
	@$(BIN)/pytest -rs tests/systemd/booted

venv: $(VENV)/.dev  ## make .venv with everything that development needs

# systemd/setup.sh tells what DESTDIR, PREFIX, APP and SYSTEM_PYTHON are for.
install:  ## as root: into /opt/syncd and onto this machine, as a systemd service; again to upgrade
	@systemd/setup.sh install

account:  ## as root: settings and a spool for syncd@NAME, beside the first: make account NAME=acme
	@systemd/setup.sh account

rollback:  ## as root: back to what the last `make install` has replaced
	@systemd/setup.sh rollback

uninstall:  ## as root: take it off again; settings, token and data stay
	@systemd/setup.sh uninstall

# Without uvloop it all works, a little slower: no reason to stop where it does not build.
$(VENV)/.runtime: pyproject.toml constraints.txt $(BIN)/pip
	@echo "installing syncd into $(VENV)"
	@$(PIP) -e '.[speed]' || { echo "trying again without uvloop, which is optional" >&2; $(PIP) -e .; }
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "installing what the benchmarks need into $(VENV)"
	@$(PIP) -e '.[bench]'
	@touch $@

# pip comes last into a new environment: one that was interrupted is made again.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "make: syncd needs Python 3.11 or newer: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "make: PYTHON=$(PYTHON) is not Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: $(PYTHON) has no venv module: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
