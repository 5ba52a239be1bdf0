# The commands of the project; each sets up what it needs in .venv first.
#   make study      the main job: data, training, evaluation, report of the Lines study
#   make test       all tests but the slow ones
#   make test-slow  the slow ones (trained networks, whole studies; those on real data need CONVSCOPE_DATA)
#   make smoke      all shipped reproductions with few images and one epoch, or those in CONVSCOPE_SMOKE (needs CONVSCOPE_DATA)
#   make lint       format, lint, types, arrows between rooms
#   make bench      speed, as ratios and against the machine's limit
#   make faults     kills, full and read-only disks, hostile files: tried and passed (slow; as root, for small disks)
#   make zoo        every lens on 89 networks of timm, torchvision and of unusual modules: docs/networks.md
#   make docs       what is generated in docs/
#   make site       the documentation as a site: build/site/index.html
#   make licences   the licences of all packages that are needed: docs/licences.md
#   make release-check   wheel and source archive, each installed into an empty environment and tried there

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check -q

# Tests run in so many processes of one thread each, by file, for what a file's tests share is made once; in the order of the
# names, for by the number of tests, as xdist would have it, the longest files came last.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# What Python compiles is kept, also where the environment says otherwise: the tests start some 150 processes.
export PYTHONDONTWRITEBYTECODE =

.PHONY: study test test-slow smoke lint format bench zoo faults docs site licences release-check clean
.DELETE_ON_ERROR:

study: $(VENV)/.installed
	$(BIN)/convscope study lines

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PARALLEL) -m slow

smoke: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m smoke

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/step.py
	$(BIN)/python bench/occlusion.py --only net4
	$(BIN)/python bench/scans.py

zoo: $(VENV)/.installed-dev
	$(BIN)/python bench/zoo.py

faults: $(VENV)/.installed-dev
	$(BIN)/python bench/faults.py

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

site: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

licences: $(VENV)/.installed-dev
	$(BIN)/python docs/licences.py

release-check: $(VENV)/.installed-dev
	$(BIN)/python bench/release.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[dev,docs]'
	$(PIP) install -c constraints.txt --no-deps --upgrade --target $(VENV)/zoo timm torchvision   # see tests/zoo.py
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
