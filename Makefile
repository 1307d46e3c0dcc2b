PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test fuzz accuracy check serve bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=python3.x" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[engine,server,plots,dev]'
	touch $(STAMP)

demo: install        ## the main job on real data, over HTTP
	$(BIN)/dmft demo

test: install        ## every test, the slow ones too
	$(BIN)/pytest

fuzz: install        ## ten thousand random requests by schemathesis, with a fixed seed
	$(BIN)/python -m tests.fuzz --cases 10000

accuracy: install    ## docs/accuracy.md, by the tests that compare solvers with something else
	$(BIN)/pytest tests --accuracy docs/accuracy.md

check: install       ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

serve: install       ## a server on this machine
	$(BIN)/dmft serve

bench: install       ## time and memory of the solver, as ratios in one run
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .dmft demo-output
