# SPDX-License-Identifier: Apache-2.0
# make demo   replay the example recording through GNU Radio and segment it
# make test   run all tests
# Both install what is missing first; GNU Radio needs root for that.

PYTHON ?= python3
GNURADIO_PYTHON ?= $(or $(RFVIT_GNURADIO_PYTHON),/usr/bin/python3)
RECORDING := flowgraphs/recordings/lte_nr_20MHz.sigmf-meta
APT := apt-get install -y --no-install-recommends gnuradio

.PHONY: demo test lint format smoke scenes clean gnuradio

demo: gnuradio .venv/runtime
	mkdir -p demo-out
	cp -f $(RECORDING) $(RECORDING:-meta=-data) demo-out/
	.venv/bin/rfvit replay demo-out/lte_nr_20MHz.sigmf-meta --png demo-out/lte_nr_20MHz.png --overwrite

test: gnuradio .venv/development
	.venv/bin/python -m pytest

lint: .venv/development
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/development
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# The way from nothing to a model file, small enough for minutes; the model that ships is made the same way, see its card.
smoke: .venv/development
	.venv/bin/python -m training.scenes --out runs/smoke/scenes --train 400 --validation 60 --test 100
	.venv/bin/python -m training.pretrain --config training/configs/pretrain_smoke.toml --data runs/smoke/scenes --out runs/smoke/pretrain
	.venv/bin/python -m training.finetune --config training/configs/finetune_smoke.toml --data runs/smoke/scenes \
		--init runs/smoke/pretrain --out runs/smoke/finetune
	.venv/bin/python -m training.export --help >/dev/null

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rfvit-rt needs Python 3.11 or later; point PYTHON at one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "cannot make a virtual environment; install one: apt-get install python3-venv"; exit 1; }

.venv/runtime: .venv/bin/python pyproject.toml
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/development: .venv/bin/python pyproject.toml
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[train,test]'
	@touch $@

gnuradio:
	@$(GNURADIO_PYTHON) -c 'from gnuradio import gr, zeromq' 2>/dev/null && exit; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q && $(APT); \
	else echo "GNU Radio is missing; install it: sudo $(APT)"; exit 1; fi

clean:
	rm -rf .venv build demo-out *.egg-info
