# Each target sets up what it needs in .venv; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo-run
BENCH ?= bench
# Modules are compiled when they are first imported, which halves the time of an installation, and
# then kept: tests start some hundred processes.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile \
	--constraint constraints.txt

.PHONY: help demo bench test check docs clean

help:
	@echo "make demo    certify digits by standard and by serialized smoothing (a few minutes)"
	@echo "make bench   measure speed and memory into $(BENCH)/ (QUICK=1: some minutes)"
	@echo "make test    run the tests"
	@echo "make check   ruff, types, layers"
	@echo "make docs    build the documentation into site/; warnings are errors"
	@echo "make clean   remove .venv, $(OUT) and $(BENCH)"

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setting up .venv (the first time this downloads PyTorch) ..."
	$(PIP) --editable ".[report]"
	@touch $@

.venv/.bench: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setting up .venv (the first time this downloads PyTorch) ..."
	$(PIP) --editable ".[fast,report]"
	@touch $@ .venv/.demo

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setting up .venv (the first time this downloads PyTorch) ..."
	$(PIP) --editable ".[dev]"
	@touch $@ .venv/.demo .venv/.bench

# Every 12th of the 397 test digits: 34 images. The same images, seed and classifier both times.
DEMO := --data digits --split test --skip 12 --model mdeq-digits --sigma 0.5 \
	--n 10000 --n0 100 --alpha 0.001 --seed 0

# One thread: the cell is too small to gain much from more, and two threads beside any other busy
# process slow down tenfold.
demo: .venv/.demo
	OMP_NUM_THREADS=1 $(BIN)/deqcert certify $(DEMO) --method standard --out $(OUT)/standard
	OMP_NUM_THREADS=1 $(BIN)/deqcert certify $(DEMO) --method srs --out $(OUT)/srs
	$(BIN)/deqcert report $(OUT)/standard $(OUT)/srs --out $(OUT)/report

# What is there is not measured again; AGAIN=1 does. THREADS=2 uses two.
THREADS ?= 1
bench: .venv/.bench
	$(BIN)/python benchmarks/suite.py --out $(BENCH) --threads $(THREADS) \
		$(if $(QUICK),--quick) $(if $(AGAIN),--again)

# One thread per test process: two OpenMP pools on the same cores slow each other down tenfold. One
# process more than there are processors, up to four: some of them always wait for their own.
TESTERS = $(shell $(BIN)/python -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TESTERS) --dist worksteal

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html; to search, too: $(BIN)/python -m http.server --directory site"

clean:
	rm -rf site .venv $(OUT) $(BENCH)
