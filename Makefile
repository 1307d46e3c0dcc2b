PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
STAMP := $(VENV)/.installed

.PHONY: install demo test coverage pythons fuzz accuracy check hooks serve bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=python3.x" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[engine,server,plots,dev]'
	touch $(STAMP)

demo: install        ## the main job on real data, over HTTP
	$(BIN)/dmft demo

test: install        ## every test, the slow ones too, on JOBS cores
	$(BIN)/pytest -n $(JOBS) --dist loadfile

coverage: install    ## the same, and how much of the code they run, in all processes
	$(BIN)/pytest -n $(JOBS) --dist loadfile --cov --cov-report=term:skip-covered

pythons: install     ## every test on each Python from 3.11 that is on this machine
	$(BIN)/nox

fuzz: install        ## ten thousand random requests by schemathesis, with a fixed seed
	$(BIN)/python -m tests.fuzz --cases 10000

accuracy: install    ## docs/accuracy.md, by the tests that compare solvers with something else
	$(BIN)/pytest tests --accuracy docs/accuracy.md

check: install       ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

hooks: install       ## `make check` at every commit
	$(BIN)/pre-commit install

serve: install       ## a server on this machine
	$(BIN)/dmft serve

bench: install       ## time and memory of the solver, as ratios in one run
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .dmft demo-output
