# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make the virtual environment that they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of PyTorch; a newer one would bring gigabytes of CUDA packages that nothing here uses.
TORCH ?= torch==2.13.0

.PHONY: demo test lint types docs clean

demo: $(VENV)/runtime
	$(BIN)/python benchmarks/demo.py

test: $(VENV)/dev lint types
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy finds packages by folders, and the packages are folders of the repository's root: a link gives them their name.
types: $(VENV)/dev
	mkdir -p $(VENV)/namespace && ln -sfn $(CURDIR) $(VENV)/namespace/flashrib
	cd $(VENV)/namespace && ../bin/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache \
	  -p flashrib.model -p flashrib.export -p flashrib.runtime -p flashrib.calibration

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The demo needs the runtime alone: no torch.
$(VENV)/runtime: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/runtime

clean:
	rm -rf $(VENV) demo-output .mypy_cache .ruff_cache .pytest_cache
