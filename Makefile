# `make demo` and `make test` are all the set-up there is; both install into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check slow docs clean

demo: .venv/installed
	$(BIN)/prunebench experiment=quickstart

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --dist worksteal

slow: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,bench]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow --timeout 3600

check: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && \
	  $(BIN)/lint-imports --no-logo && $(BIN)/vulture

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/docs: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	@touch $@

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  "prunebench needs Python 3.11, 3.12 or 3.13 (Hydra 1.3 and fvcore do not run on 3.14); this is %d.%d. Try: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist site
