# SPDX-License-Identifier: Apache-2.0
# make demo   replay the example recording through GNU Radio and segment it
# make test   run all tests
# make install-blocks   install the GNU Radio blocks, below PREFIX
# They install what is missing first; GNU Radio and the tools to build its blocks need root for that.

PYTHON ?= python3
RECORDING := flowgraphs/recordings/lte_nr_20MHz.sigmf-meta
SMOKE := runs/smoke
EXPERIMENTS := runs/experiments-smoke
CAN_APT = [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null
HAVE = dpkg -s $(1) >/dev/null 2>&1
APT_INSTALL = apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends

# GNU Radio has a Python of its own, which rfvit looks for; RFVIT_GNURADIO_PYTHON names it.
define FIND_GNURADIO
import sys
from rfvit_rt.errors import RfvitError
from rfvit_rt.flowgraph import find_gnuradio_python
try:
    find_gnuradio_python()
except RfvitError as error:
    sys.exit(f"error: {error}")
endef
export FIND_GNURADIO

# What builds the blocks; what shows their Qt sink to the tests, a broker for their MQTT messages, and a browser for the
# page, which Ubuntu has only as a snap.
BUILD_PACKAGES := cmake g++ make pkg-config gnuradio-dev
BROWSER := $(shell grep -qs '^ID=ubuntu' /etc/os-release || echo chromium)
TEST_PACKAGES := $(BUILD_PACKAGES) xvfb xauth mosquitto $(BROWSER)
BLOCKS_BUILD := build/gr_blocks
PREFIX := /usr/local

.PHONY: demo test lint format smoke experiments-smoke clean gnuradio test-packages install-blocks flowgraphs screenshots

demo: gnuradio .venv/runtime
	mkdir -p demo-out
	cp -f $(RECORDING) $(RECORDING:-meta=-data) demo-out/
	.venv/bin/rfvit replay demo-out/lte_nr_20MHz.sigmf-meta --png demo-out/lte_nr_20MHz.png --overwrite

test: gnuradio test-packages .venv/development
	.venv/bin/python -m pytest

# GRC and GNU Radio's Python look into /usr/local by themselves; another PREFIX has to be told to both.
install-blocks:
	@$(call HAVE,$(BUILD_PACKAGES)) || { $(CAN_APT) && $(APT_INSTALL) $(BUILD_PACKAGES); } || command -v cmake >/dev/null || \
		{ echo "the blocks need tools to build; install: sudo apt-get install $(BUILD_PACKAGES)"; exit 1; }
	cmake -S gr_blocks -B $(BLOCKS_BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX)
	cmake --build $(BLOCKS_BUILD)
	@[ -w "$(DESTDIR)$(PREFIX)" ] || mkdir -p "$(DESTDIR)$(PREFIX)" 2>/dev/null && [ -w "$(DESTDIR)$(PREFIX)" ] || \
		{ echo "cannot write to $(DESTDIR)$(PREFIX); run: sudo cmake --install $(BLOCKS_BUILD)"; exit 1; }
	DESTDIR=$(DESTDIR) cmake --install $(BLOCKS_BUILD)

# Every flowgraph's .py and picture, from its .grc.
flowgraphs: gnuradio
	/usr/bin/python3 flowgraphs/build.py

# The README's pictures of the page.
screenshots: test-packages .venv/development
	mkdir -p rfvit_rt/web/screenshots
	RFVIT_SCREENSHOTS=rfvit_rt/web/screenshots .venv/bin/python -m pytest tests/web/test_page.py tests/web/test_page_csi.py \
		-k screenshot

lint: .venv/development
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/development
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# The way from nothing to a model file, small enough for minutes; the model that ships is made the same way, see its card.
smoke: .venv/development
	rm -rf $(SMOKE)
	.venv/bin/python -m training.scenes --out $(SMOKE)/scenes --train 400 --validation 60 --test 100
	.venv/bin/python -m training.pretrain --config training/configs/pretrain_smoke.toml --data $(SMOKE)/scenes \
		--out $(SMOKE)/pretrain
	.venv/bin/python -m training.finetune --config training/configs/finetune_smoke.toml --data $(SMOKE)/scenes \
		--init $(SMOKE)/pretrain/last.safetensors --out $(SMOKE)/finetune
	.venv/bin/python -m training.evaluate --model $(SMOKE)/finetune/best.safetensors --data $(SMOKE)/scenes \
		--out $(SMOKE)/evaluation.json
	.venv/bin/python -m training.export --checkpoint $(SMOKE)/finetune/best.safetensors --data $(SMOKE)/scenes \
		--metrics $(SMOKE)/evaluation.json --out $(SMOKE)/smoke.onnx

# All tables of training.experiments, small enough for minutes; their figures mean nothing.
experiments-smoke: .venv/development
	rm -rf $(EXPERIMENTS)
	.venv/bin/python -m training.scenes --out $(EXPERIMENTS)/scenes --train 160 --validation 24 --test 60
	.venv/bin/python -m training.experiments larger labels snr alarms rates captures masking targets recordings \
		decoders networks heads adapt losses paper --data $(EXPERIMENTS)/scenes --out $(EXPERIMENTS) \
		--seeds 1 --unet-width 4 --windows 24 --set-windows 6 \
		--pretraining training/configs/pretrain_experiment_smoke.toml \
		--finetuning training/configs/finetune_experiment_smoke.toml --captures flowgraphs/recordings \
		--unlabelled flowgraphs/recordings

# Debian and Ubuntu leave venv and ensurepip out of their Python; without them the first command fails half-way.
.venv/bin/pip:
	@$(PYTHON) -c 'import venv, ensurepip; ensurepip.version()' 2>/dev/null || { $(CAN_APT) && $(APT_INSTALL) python3-venv; } || \
		{ echo "$(PYTHON) is missing or cannot make virtual environments; install: sudo apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rfvit-rt needs Python 3.11 or later; point PYTHON at one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment in .venv; see above"; exit 1; }

.venv/runtime: .venv/bin/pip pyproject.toml
	@echo "Installing rfvit and what it needs into .venv; this takes a minute or a few"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/development: .venv/runtime
	@echo "Installing the tools for tests and training into .venv. PyTorch is large, and on Linux its wheel on PyPI brings" \
		"CUDA; for the CPU alone: PIP_EXTRA_INDEX_URL=(PyTorch's CPU wheel index) make test"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[train,test]'
	@touch $@

gnuradio: .venv/runtime
	@.venv/bin/python -c "$$FIND_GNURADIO" 2>/dev/null && exit; \
	if [ -z "$$RFVIT_GNURADIO_PYTHON" ] && $(CAN_APT); then $(APT_INSTALL) gnuradio || exit 1; fi; \
	.venv/bin/python -c "$$FIND_GNURADIO"

# Tests that need these skip, and say so, where they are missing.
test-packages:
	@$(call HAVE,$(TEST_PACKAGES)) || { $(CAN_APT) && $(APT_INSTALL) $(TEST_PACKAGES); } || \
		echo "tests of building the GNU Radio blocks, and of the page, may be skipped; install: sudo apt-get install $(TEST_PACKAGES)"

clean:
	rm -rf .venv build demo-out *.egg-info
