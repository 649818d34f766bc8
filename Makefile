# Everything a person does with this project. `make help` lists it.
PYTHON ?= python3
PROFILE ?= embedded
STUDY ?= main
JOBS ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)
EXECUTOR ?= local
DEVICE ?= cpu
NB ?= train
ARGS ?=

VENV := .venv
READY := $(VENV)/.ready
GRID := --profile '$(PROFILE)' --study '$(STUDY)' --jobs '$(JOBS)'
SEEDED := $(GRID) $(if $(SEEDS),--seeds '$(SEEDS)')

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export OMP_NUM_THREADS ?= 1
# Containers often set it; every process would then compile the Python code of PyTorch and pandas again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup reproduce ablations smoke plan search claims book publish notebook test torture lint benchmark rate clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Settings: PROFILE=$(PROFILE) STUDY=$(STUDY) SEEDS=(the profile's) JOBS=$(JOBS) EXECUTOR=$(EXECUTOR)"

setup: $(READY) ## Make the environment in .venv

$(READY): requirements.txt pyproject.toml
	@echo "setting up the environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python -r requirements.txt
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps -e .
	@touch $@

reproduce: $(READY) ## Train what is missing into results/local and build the book from all of it
	@msam reproduce $(SEEDED) --executor '$(EXECUTOR)'

ablations: $(READY) ## Train what is missing of all studies of the profile (hours: `make plan STUDY=all`), then build the book
	@msam reproduce $(SEEDED) --study all --executor '$(EXECUTOR)'

smoke: $(READY) ## The same path on a tiny budget, into build/smoke
	@rm -rf build/smoke
	@msam reproduce --profile smoke --jobs '$(JOBS)' --results build/smoke/results --book build/smoke/book

plan: $(READY) ## List the cells that `make reproduce` would train, with expected times
	@msam plan $(SEEDED)

search: $(READY) ## Choose hyper-parameters on the validation splits, the same budget for every method
	@msam search $(GRID)

claims: $(READY) ## Judge the paper's claims by the published records
	@msam claims

book: $(READY) ## Build the book from all published records alone
	@msam book

publish: $(READY) ## Make the records of results/local, step costs and rate included, the published ones
	@msam publish --profile '$(PROFILE)'

notebook: $(READY) ## Run one notebook: NB=train ARGS="-p dataset watch -p method msam -p seeds 3"
	@msam notebook $(NB) $(ARGS)

test: $(READY) ## Run the tests, each file in one of up to four processes
	@pytest -n logical --maxprocesses 4 --dist loadfile

torture: $(READY) ## Kill a tiny `make reproduce` 20 times and see that nothing is lost (a quarter of an hour)
	@python tests/torture.py $(ARGS)

lint: $(READY) ## Check style and types
	@ruff check . && ruff format --check . && mypy

benchmark: $(READY) ## Measure steps beside SAM and other SAMs, and seeds trained together: half an hour; DEVICE=cuda on a GPU
	@for name in step_cost modalities peers stacked; do python benchmarks/$$name.py --device $(DEVICE) || exit 1; done

rate: $(READY) ## Measure the rate of convergence where the gradient is known
	@msam rate

clean: ## Remove what was built, not results and not the environment
	@rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis .snakemake
