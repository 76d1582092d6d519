# The two commands of the README are `make demo` and `make test`; both set up .venv themselves, once, and again when
# pyproject.toml or constraints.txt change.
PYTHON ?= python3
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint types format bench fuzz weights networks control control-plain control-heads control-heads-plain control-faces clean

demo: .venv/.ready           ## steer a face generator end to end and write demo/report.html
	.venv/bin/steer demo --out demo

test: lint                   ## lint, then every test, a process on each core
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

lint: .venv/.ready-dev       ## ruff: rules and format
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: .venv/.ready-dev      ## pyright over src
	.venv/bin/basedpyright --level error

format: .venv/.ready-dev     ## let ruff rewrite what it can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: .venv/.ready-dev      ## every benchmark, one after the other
	@set -e; for script in benchmarks/*.py; do echo "$$script"; .venv/bin/python "$$script"; done

fuzz: .venv/.ready-dev       ## damage checkpoints 20,000 times: each loads, or is refused in one line, within 2 s and 2 GB; then the studio's requests
	.venv/bin/python tools/fuzz.py
	STEERABLE_EXAMPLES=2000 OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q tests/studio/test_fuzz.py

weights: .venv/.ready-dev    ## make every shipped weight file again from the package it came from
	@set -e; for script in tools/convert_*.py tools/write_manifest.py; do echo "$$script"; .venv/bin/python "$$script"; done

# The generators of benchmarks/digits.py and variability.py, up to ten minutes each; an interrupted one goes on where it stopped.
# tools/ship_digits.py puts them into the package.
TRAIN = .venv/bin/steer train steerable --data "$(DATA)" --seed 0 --precision auto
VARY = zoom=0.32,shift-x=0.1,brightness=0.12
digits: .venv/.ready         ## train the digits generators: make digits DATA=FOLDER, the folder with the idx files of MNIST
	@test -n "$(DATA)" || { echo "name the folder with the idx files: make digits DATA=FOLDER" >&2; exit 2; }
	$(TRAIN) --way plain --out digits/digits32
	@set -e; for edit in zoom shift-x rotate; do \
	  $(TRAIN) --way augmented --edit $$edit --out digits/digits32-aug-$$edit; \
	  $(TRAIN) --way joint --edit $$edit --out digits/digits32-joint-$$edit; done
	$(TRAIN) --way plain --vary $(VARY) --steps 4000 --out digits/digits32-varied

# Controllable generators, each with its controllers; an interrupted one goes on where it stopped. benchmarks/control_precision.py measures
# them, tools/ship_control.py puts those of digits and heads into the package.
CONTROL = .venv/bin/steer train controllable --seed 0 --precision auto --out control/$(1)
FIT = .venv/bin/steer fit controllers --generator control/$(1)/generator.safetensors --out control/$(1)/controllers.safetensors
HEADS = --backbone dcgan-bounded --width 64 --lr 1e-3 --steps 5000
networks: .venv/.ready       ## train what controllable trainings measure by: make networks DATA=FOLDER
	@test -n "$(DATA)" || { echo "name the folder with the idx files: make networks DATA=FOLDER" >&2; exit 2; }
	.venv/bin/python tools/train_digit_networks.py --data "$(DATA)"
	.venv/bin/python tools/train_head_networks.py
	.venv/bin/python tools/write_manifest.py

control: .venv/.ready        ## train digits32-control and fit its controllers: make control DATA=FOLDER
	@test -n "$(DATA)" || { echo "name the folder with the idx files: make control DATA=FOLDER" >&2; exit 2; }
	$(call CONTROL,digits32-control) --data "$(DATA)" --domain digits
	$(call FIT,digits32-control)

control-plain: .venv/.ready  ## the same without the contrastive losses, to compare with: make control-plain DATA=FOLDER
	@test -n "$(DATA)" || { echo "name the folder with the idx files: make control-plain DATA=FOLDER" >&2; exit 2; }
	$(call CONTROL,digits32-plain) --data "$(DATA)" --domain digits --contrast 0

control-heads: .venv/.ready  ## train heads32-control on rendered heads and fit its controllers
	$(call CONTROL,heads32-control) --domain heads $(HEADS) --far 20 --population 1
	$(call FIT,heads32-control) --refine 1200

control-heads-plain: .venv/.ready   ## the same without the contrastive losses, to compare with
	$(call CONTROL,heads32-plain) --domain heads $(HEADS) --contrast 0

control-faces: .venv/.ready  ## learn groups in front of faces64, which stays as it is, and fit their controllers
	$(call CONTROL,faces64-groups) --in-front-of faces64 --groups pose:12,expression:12,skin-brightness:8,identity:32,rest:36 \
	  --batch 30 --width 16 --steps 600 --warm-up 100 --contrast 1 --far 20 --population 0
	$(call FIT,faces64-groups) --groups pose,skin-brightness --n 2000 --refine 100

clean:                       ## remove what these commands made
	rm -rf .venv demo fuzz build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "steerable needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.ready: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(PIP) -e ".[dev]"
	@touch $@
