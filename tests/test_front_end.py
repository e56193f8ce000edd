# SPDX-License-Identifier: Apache-2.0
"""Raw IQ through an engine that makes the pictures itself: the same annotations as with those of the processor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rfvit_rt.datatypes import IQBlock
from rfvit_rt.engines import load_engine
from rfvit_rt.errors import ModelError, StreamError
from rfvit_rt.models import default_model
from rfvit_rt.pipeline import PipelineSettings, PipelineStatistics, analyse

torch = pytest.importorskip("torch", reason="the engine that takes IQ here is torch: pip install -e '.[train]'")

EXAMPLE = Path(__file__).parent.parent / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"
RATE = 2e6
WINDOW = 80_000  # samples


def rfvit(*arguments):
    command = [sys.executable, "-c", "from rfvit_rt.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def noise(count, seed=1):
    return np.random.default_rng(seed).standard_normal((count, 2), np.float32).view(np.complex64)[:, 0]


def analysed(blocks, engine, front_end):
    settings = PipelineSettings(hop_steps=256, engine_makes_pictures=front_end == "gpu")
    return list(analyse(iter(blocks), engine, default_model().contract, settings, PipelineStatistics()))


@pytest.fixture(scope="module")
def engine():
    before = torch.get_num_threads()
    with load_engine(default_model(), "torch", device="cpu", threads=1) as engine:
        yield engine
    torch.set_num_threads(before)


def test_the_example_gets_the_same_annotations(tmp_path):
    found = {}
    for front_end in ("cpu", "gpu"):
        output = tmp_path / f"{front_end}.sigmf-meta"
        done = rfvit(
            *("segment", EXAMPLE, "--output", output, "--front-end", front_end),
            *("--engine", "torch", "--device", "cpu", "--threads", 1),  # of more, idle ones spin
        )
        assert done.returncode == 0, done.stderr
        assert ("makes the pictures on the processor, and slowly" in done.stdout) == (front_end == "gpu")
        found[front_end] = [a for a in json.loads(output.read_text())["annotations"] if "rfvit:model" in a]
    assert {annotation["core:label"] for annotation in found["cpu"]} == {"LTE", "NR"}
    places = ("core:label", "core:sample_start", "core:sample_count", "core:freq_lower_edge", "core:freq_upper_edge")
    assert [[a[key] for key in places] for a in found["gpu"]] == [[a[key] for key in places] for a in found["cpu"]]


def test_windows_of_all_lengths_and_rates_come_out_in_order(engine, monkeypatch):
    """Full ones, one that a gap cut short, and ones at another rate: which way each went must not show."""
    taken = []
    infer_iq = type(engine).infer_iq
    monkeypatch.setattr(
        type(engine),
        "infer_iq",
        lambda self, iq, rate: (taken.extend([rate] * len(iq)), infer_iq(self, iq, rate))[1],
    )
    blocks = [
        IQBlock(noise(2 * WINDOW), 0, RATE),
        IQBlock(noise(WINDOW // 3, 2), 3 * WINDOW, RATE),  # after a gap, and before one
        IQBlock(noise(2 * WINDOW, 3), 5 * WINDOW, RATE),
        IQBlock(noise(2 * WINDOW, 4), 7 * WINDOW, 2 * RATE),
    ]
    expected = analysed(blocks, engine, "cpu")
    assert not taken
    found = analysed(blocks, engine, "gpu")
    assert sorted(taken) == [RATE] * (1 + 4) + [2 * RATE] * (1 + 1)  # the first of each rate is the trial
    assert [window.mask.sample_start for window in found] == [window.mask.sample_start for window in expected]
    assert len(found[2].picture) == 85  # the short one
    for window, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(window.picture, other.picture, atol=0.02)  # dB
        np.testing.assert_allclose(window.mask.probabilities, other.mask.probabilities, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25 + 0j])
def test_samples_that_are_no_numbers_are_refused_as_ever(engine, value):
    samples = noise(WINDOW)
    samples[1234] = value
    with pytest.raises(StreamError, match="sample 1234 is NaN, infinite or too large"):
        analysed([IQBlock(samples, 0, RATE)], engine, "gpu")


def test_an_engine_whose_pictures_are_wrong_ends_the_run(engine, monkeypatch):
    infer_iq = type(engine).infer_iq

    def shifted(self, iq, rate):
        pictures, probabilities = infer_iq(self, iq, rate)
        return pictures + np.float32(0.1), probabilities

    monkeypatch.setattr(type(engine), "infer_iq", shifted)
    with pytest.raises(ModelError, match=r"pictures made at 2 MS/s .* deviate by 2 dB"):
        analysed([IQBlock(noise(WINDOW), 0, RATE)], engine, "gpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--front-end", "gpu"], "the openvino engine takes pictures, not IQ; leave --front-end gpu out"),
        (["--front-end", "fpga"], "there is no front end 'fpga'; choose one of cpu, gpu"),
        (["--device", "abacus"], "no device 'abacus' here"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, message, tmp_path):
    done = rfvit("segment", EXAMPLE, *options, "--output", tmp_path / "o.sigmf-meta")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_auto_says_what_it_takes_and_why(tmp_path):
    done = rfvit("segment", EXAMPLE, "--engine", "auto", "--device", "cpu", "--output", tmp_path / "o.sigmf-meta")
    assert done.returncode == 0, done.stderr
    assert "Engine openvino: nothing else can run the model here" in done.stdout
