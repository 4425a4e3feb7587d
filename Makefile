# Everything happens in .venv, made from constraints.txt; plain pip, Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEEL_VENV := .make/wheel-venv
# Uncompiled, which halves the time; so what is used is compiled, and kept, when it first is.
INSTALL := pip install --quiet --no-compile -c constraints.txt
export PYTHONDONTWRITEBYTECODE :=
# The longest first, as they go two at a time.
SMOKES := $(addprefix smoke-,unlike events links overlap pull \
  allreduce slow rates scaling soak planning planning_reduce)

.DEFAULT_GOAL := help
.PHONY: help demo test ready search alone lint bench bench-smoke $(SMOKES) soak simulate docs build clean
.DELETE_ON_ERROR:
# Side by side go only the parts that `make test` asks for in a make of its own.
ifeq ($(filter ready alone $(SMOKES),$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## nodes join, crash and leave while a model trains (ARGS="--help")
	@$(BIN)/lightning-chaos demo $(ARGS)

# ARGS may choose tests none of which are of this sort: pytest calls that 5.
define pytest
cd $(WHEEL_VENV) && bin/pytest -p no:cacheprovider -c ../../pyproject.toml --rootdir ../.. \
  --durations=40 --durations-min=1 $(1) ../../tests $(ARGS) $(if $(ARGS),|| test $$? = 5)
endef

# The tests run against the wheel, in an environment of its own that has not seen the sources.
test: ## lint, all tests against the built wheel, the benches once
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target ready $(SMOKES)
	$(WHEEL_VENV)/bin/pip install --quiet --no-deps --force-reinstall dist/*.whl
	cd $(WHEEL_VENV) && bin/python -P -c \
	  'import lightning_chaos as c, sys; sys.exit("site-packages" not in c.__file__)'
	$(call pytest,-m "not (alone or search)" --numprocesses=3 --dist=worksteal) # one of them waits
	$(MAKE) --no-print-directory --jobs=2 search alone

# It gets the processors only while none of the real nodes wants them, which mostly wait.
search:
	@( $(call pytest,-m search) ) >.make/search 2>&1; code=$$?; cat .make/search; exit $$code

alone:
	$(call pytest,-m alone)

# Two environments take half a minute each, on one core each.
ready: lint build $(WHEEL_VENV)/.installed

lint: $(VENV)/.installed ## style, types, the doors between the rooms, the links of the documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/check_links.py

bench: $(VENV)/.installed ## events; links; reductions beside gloo's; overlap; slow; plans; rates: tables, in benchmarks/results
	$(BIN)/python benchmarks/events.py --write benchmarks/results/events.md $(ARGS)
	$(BIN)/python benchmarks/links.py --write benchmarks/results/links.md $(ARGS)
	$(BIN)/python benchmarks/allreduce.py --write benchmarks/results/allreduce.md $(ARGS)
	$(BIN)/python benchmarks/overlap.py --write benchmarks/results/overlap.md $(ARGS)
	$(BIN)/python benchmarks/slow.py --write benchmarks/results/slow.md $(ARGS)
	$(BIN)/python benchmarks/scaling.py --write benchmarks/results/scaling.md $(ARGS)
	$(BIN)/python benchmarks/planning.py --write benchmarks/results/planning.md $(ARGS)
	$(BIN)/python benchmarks/planning_reduce.py --write benchmarks/results/planning_reduce.md $(ARGS)
	$(BIN)/python benchmarks/rates.py --write benchmarks/results/rates.md $(ARGS)
	$(BIN)/python benchmarks/pull.py --write benchmarks/results/pull.md $(ARGS)
	$(BIN)/python benchmarks/unlike.py --write benchmarks/results/unlike.md $(ARGS)

bench-smoke: $(VENV)/.installed ## the same, once, to see that they still run
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(SMOKES)

$(SMOKES): smoke-%: $(VENV)/.installed
	$(BIN)/python benchmarks/$*.py --smoke

soak: $(VENV)/.installed ## thousands of view changes in one peer: memory and descriptors (minutes)
	$(BIN)/python benchmarks/soak.py --write benchmarks/results/soak.md $(ARGS)

simulate: $(VENV)/.installed ## play random faults in virtual time until a promise breaks (SEED=n)
	$(BIN)/python -m lightning_chaos.testing.simulator $(or $(SEED),$(shell date +%s)):

docs: $(VENV)/.installed ## check the links of the documents (they are read as they are)
	$(BIN)/python docs/check_links.py

build: $(VENV)/.installed ## wheel and source archive in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

clean: ## remove everything that make made
	rm -rf $(VENV) .make dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "lightning-chaos needs Python 3.11 or later: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) -e ".[demo,dev]"
	@touch $@

# What the package requires, and a first build of it, over which each new wheel is then laid.
$(WHEEL_VENV)/.installed: pyproject.toml constraints.txt
	rm -rf $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/$(INSTALL) ".[demo,exact,plot]" pytest pytest-timeout pytest-xdist hypothesis
	@touch $@
