# Thin on purpose: what takes more than a line is a script of its own.
BIN := .venv/bin
STAMP := .venv/.setup-stamp

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(STAMP)  ## make .venv with all that running and testing needs

$(STAMP): pyproject.toml scripts/setup
	scripts/setup
	touch $@

demo: setup  ## record a small run, serve it, and say where to look
	$(BIN)/trace-archive demo

test: setup  ## run the tests, three at once: for two cores, since many wait
	$(BIN)/pytest -n 3 --dist worksteal

check: setup  ## lint, format, types, who may import whom
	scripts/check

bench: setup  ## measure beside peers, which it installs; QUICK=1 makes it small
	benchmarks/peers/setup
	$(BIN)/python -m benchmarks

clean:  ## remove what builds and tools left behind; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
