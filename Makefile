# No activation needed: every target uses its own environment. Targets are explained in CONTRIBUTING.md.
PYTHON   ?= python3
VENV     ?= .venv
# Installed first and alone, so that PIP_ARGS can point to the CPU build; PyPI's own brings CUDA, several gigabytes:
#   make check PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
TORCH    ?= torch==2.14.1 torchvision==0.29.1
PIP_ARGS ?=
# Two tests at a time on two cores; each process computes on one, or they stand in each other's way.
JOBS     ?= 2
PYTEST_ARGS ?=

DEMO_VENV  ?= .venv-demo
DEMO_CLIP  ?= runtime/data/example.mp4
DEMO_QUERY ?= a woman in a dark red jacket and light blue trousers with a yellow backpack
DEMO_OUT   ?= demo

.PHONY: demo test lint format types type check clean

demo: $(DEMO_VENV)/.installed ## install what a device needs and search the example clip
	rm -rf $(DEMO_OUT)
	$(DEMO_VENV)/bin/tagclip search "$(DEMO_QUERY)" $(DEMO_CLIP) --out $(DEMO_OUT)/

test: $(VENV)/.installed ## all tests
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.installed ## style, nothing is changed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.installed ## put the code in form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

types: ## the link tree that mypy reads; without it mypy checks the installed copy
	@mkdir -p build/types/tagclip
	@for part in train export runtime calibration; do ln -sfn ../../../$$part build/types/tagclip/$$part; done

type: $(VENV)/.installed types ## mypy --strict
	$(VENV)/bin/mypy

check: lint type test ## what has to pass before a change is merged

clean: ## everything that the other targets made
	rm -rf build dist *.egg-info $(VENV) $(DEMO_VENV) $(DEMO_OUT) .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-compile $(PIP_ARGS) $(TORCH)
	$(VENV)/bin/python -m pip install --quiet --no-compile $(PIP_ARGS) -e '.[train,export,dev]'
	# pip compiles on one core. Some packages carry files that are no Python of this version.
	$(VENV)/bin/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	touch $@

# Not editable, as a user installs it. build/lib goes first: pip leaves it, and would ship deleted modules again.
# So the demo follows every change of the code.
$(DEMO_VENV)/.installed: setup.cfg pyproject.toml $(shell find runtime -type f -not -path '*/__pycache__/*')
	rm -rf build/lib
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) '.[cpu]'
	touch $@
