# make demo   transcripts of two bundled clips, from nothing
# make test   formatting, lint and all tests, from nothing
# make docs   the docs as a site, in site/
#
# All set up .venv on the first call and again only when pyproject.toml changes.
#
# TORCH        which torch to install; it goes first, so that nothing else chooses one
# TORCH_INDEX  package index to take torch and torchaudio from. On a CPU-only Linux machine give the address of PyTorch's CPU index (see
#              pytorch.org, "Get Started"), or let pip's own configuration point at CPU wheels: then no CUDA package is downloaded.
# PYTHON       the interpreter for .venv, 3.11 or newer

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCHAUDIO ?= torchaudio==2.11.0
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.melcli-installed

.PHONY: setup demo test lint format docs clean

setup: $(STAMP)

# torchaudio goes in without its dependencies: only its pure PyTorch parts are used, and they work beside any torch (melcli/torchaudio_guard.py).
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "melcli needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) install -q --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCHAUDIO)'
	$(PIP) install -q -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/melcli transcribe melcli/assets/clips/*.wav

test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(STAMP)
	$(BIN)/python docs/make_commands.py
	$(BIN)/mkdocs build --strict

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache
