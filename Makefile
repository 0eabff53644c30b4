# Everything runs in a virtual environment beside this file; it is made and brought up to date when needed.
#   make train ARGS="--config configs/frappe.py"     make test PYTHON=python3.12     make test ARGS="tests/data -k order"
PYTHON ?= python3
ARGS ?=
JOBS ?= 2
SPEED ?= --all --write docs/performance.md
VENV := .venv$(patsubst python%,-%,$(filter-out python3 python,$(notdir $(PYTHON))))
RUN := $(VENV)/bin/python
# each worker its half, in order, which keeps together what tests of one file share; who is done takes of the rest
PYTEST := $(RUN) -m pytest -n $(JOBS) --dist worksteal
# Directories that run in little time and touch every library whose versions differ between the Python versions.
FAST := $(wildcard $(addprefix tests/,config data embeddings evaluation models ops))

.DELETE_ON_ERROR:
.PHONY: train test test-all test-fast lint bench clean

train: $(VENV)/.installed
	$(RUN) train.py $(ARGS)

test: lint
	$(PYTEST) $(ARGS)

test-all: lint $(VENV)/.installed-ray
	$(PYTEST) -m "" $(ARGS)

test-fast: $(VENV)/.installed-dev
	$(PYTEST) $(FAST) $(ARGS)

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

# Hours in all; stopped, it goes on where it was. SPEED='--cells "M 4096 1M"' measures some cells, SPEED=--quick one small.
bench: $(VENV)/.installed-bench
	$(RUN) benchmarks/speed.py $(SPEED)
	for name in breakdown allocators fm loop rows sequential pipeline prepare metrics; do $(RUN) benchmarks/$$name.py || exit 1; done

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path "./.git/*" -prune -exec rm -rf {} +

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) does not run or is older than Python 3.11; name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV) (some minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

# Large, and only the slow tests use it.
$(VENV)/.installed-ray: $(VENV)/.installed-dev
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[dev,ray]"
	touch $@

# fbgemm_gpu asks for a GPU's torch, but its CPU wheel does without: the peer's fastest tables, where there is a wheel.
$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[dev,experiments]"
	-$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps fbgemm-gpu-cpu==1.8.0
	touch $@
