# Every target sets itself up: Python 3.11, make and git are all a machine needs. `make help` lists the targets.
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= smoke
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed-$(shell git hash-object requirements.lock)
SOURCES := pfcalib tests notebooks

# Two workers share two cores, so each library keeps to one thread.
TEST_ENV := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help install report site test lint format lab benchmark lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F: '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  PROFILE=smoke|standard|full chooses the parameter sets of notebooks/profiles (now: $(PROFILE))"

$(STAMP): requirements.lock
	@test -n "$(PYTHON)" || { echo "make: no Python found; install Python 3.11 or call make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "make: pfcalib needs Python 3.11, but $(PYTHON) is $$("$(PYTHON)" --version 2>&1); call make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing the locked packages into $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-*
	@touch $@

install: $(STAMP)  ## only the set-up, .venv from requirements.lock, pfcalib editable

report: $(STAMP)  ## run the core studies, or STUDIES="07 08" or all, and build reports/index.html
	@$(BIN)/pfcalib report $(STUDIES) --profile $(PROFILE)

site: $(STAMP)  ## the site reports/index.html with the API and archives for HEPData, from the results that are there
	@$(BIN)/pfcalib index --api

test: $(STAMP)  ## the fast tests, the docstring examples and a smoke run of every notebook
	@$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup --durations 25 --benchmark-disable --ignore tests/benchmarks

lint: $(STAMP)  ## ruff, codespell, mypy, and no outputs stored in notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy pfcalib
	git ls-files -z 'notebooks/*.ipynb' | xargs -0 -r $(BIN)/nbstripout --keep-id --verify

format: $(STAMP)  ## mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files -z 'notebooks/*.ipynb' | xargs -0 -r $(BIN)/nbstripout --keep-id

lab: $(STAMP)  ## JupyterLab, opened on notebooks/00_start.ipynb
	@JUPYTER_CONFIG_PATH=.jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH} $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start.ipynb

benchmark: $(STAMP)  ## timings of simulation, clustering, streaming, inference
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-only

lock: $(STAMP)  ## solve pyproject.toml anew into requirements.lock (maintainers)
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra fits --extra fpga --extra geant4 --extra hepdata --extra jets --extra lab --extra pythia --extra serve --extra tables --extra tracking --extra workflow --generate-hashes --python-version 3.11 \
	  --prerelease=if-necessary-or-explicit -o requirements.lock --no-header -q \
	  --no-emit-index-url --no-emit-find-links --no-annotate

clean:  ## remove what was built; .venv and committed results stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	@git clean -fdXq reports
	@find pfcalib tests -name __pycache__ -type d -prune -exec rm -rf {} +
