# Each target does all its own set-up; a machine needs Python 3.11 or later with its venv module, and make.
#
#     make demo      the example programs, then a real job on real files
#     make test      all the tests; PYTEST_ARGS="-k pipe -x" hands options to pytest
#     make test-clusters    those that run on Dask and Ray, which this installs
#     make all       tests, lint, types, docs
#
# Another interpreter: make test PYTHON=python3.12 VENV=.venvs/3.12

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -m "not clusters"

export PYTHON
# Whatever the user's shell is set to, the programs run in the environment that is made here.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

RUN = "$(VENV)/bin/python"
INSTALL = @sh .ci/venv "$(VENV)"

# The targets share one environment.
.NOTPARALLEL:
.PHONY: all demo test test-clusters stress yardstick coverage lint format types docs docs-serve bench faults build dist clean help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile
	@echo "Targets: all demo test test-clusters stress yardstick coverage lint format types docs docs-serve bench faults build dist clean"

all: test lint types docs

demo:
	$(INSTALL)
	@set -e; run() { echo; echo "$$ python examples/$$*"; $(RUN) -u "examples/$$@"; }; \
	    run process-base.py; \
	    for method in "" spawn fork forkserver; do run start-methods.py $$method; done; \
	    run pool-base.py; \
	    run pool-pipe.py; \
	    run supervisor-echo.py; \
	    run token-count.py

test:
	$(INSTALL) test
	@$(RUN) -m pytest $(PYTEST_ARGS)

test-clusters:
	$(INSTALL) test-clusters
	@$(RUN) -m pytest -m clusters

# Storms of random work and killed workers: make stress SECONDS=600 SEED=1
stress:
	$(INSTALL) test
	@$(RUN) -m tests.stress.storm $(or $(SECONDS),60) $(SEED)

# The interpreter's own tests of multiprocessing and of ProcessPoolExecutor, and joblib's of its backends, on procflow.
yardstick:
	$(INSTALL) test
	@$(RUN) tests/yardstick/run_stdlib_tests.py all
	@$(RUN) tests/yardstick/run_executor_tests.py all
	@$(RUN) tests/yardstick/run_joblib_tests.py -q --disable-warnings

coverage:
	$(INSTALL) test
	@$(RUN) -m coverage erase
	@$(RUN) -m coverage run -m pytest $(PYTEST_ARGS)
	@$(RUN) -m coverage combine --quiet
	@$(RUN) -m coverage report

lint:
	$(INSTALL) lint
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check

format:
	$(INSTALL) lint
	@$(RUN) -m ruff check --fix
	@$(RUN) -m ruff format

types:
	$(INSTALL) lint
	@$(RUN) -m mypy
	@$(RUN) -m pyright
	@$(RUN) -m pyright --project tests/typing  # what must be refused: there an ignore that is not needed is an error

docs:
	$(INSTALL) docs
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "The documentation is in site/index.html"

docs-serve:
	$(INSTALL) docs
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs serve

bench:
	$(INSTALL) bench
	@set -e; for file in $(filter-out benchmarks/faults_of_peers.py,$(wildcard benchmarks/[a-z]*.py)); do echo; echo "$$ python $$file"; \
	    $(RUN) "$$file" --json "docs/benchmarks/data/$$(basename "$$file" .py).json"; done
	@$(RUN) benchmarks/_render.py

# What other pools do when something goes wrong, and the table of it: 20 minutes.
faults:
	$(INSTALL) bench
	@$(RUN) benchmarks/faults_of_peers.py --json docs/design/data/faults_of_peers.json
	@$(RUN) benchmarks/_render_faults.py

build:
	$(INSTALL) build
	@$(RUN) -m build --outdir dist

# Wheel and sdist, their contents, and the tests on the installed wheel.
dist:
	$(INSTALL) build
	@$(RUN) .ci/dist.py $(PYTEST_ARGS)

clean:
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov
	rm -rf .venvs "$(VENV)"
	find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
