# SPDX-License-Identifier: Apache-2.0
"""Blocks through windowing, spectrogram and a real engine: order, batches, failures, latency."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import IQBlock
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.errors import SpecMismatch, StreamError
from rfvit_rt.models import default_model
from rfvit_rt.pipeline import TURN, Analysed, PipelineSettings, PipelineStatistics, analyse

RATE = 2e6
WINDOW = 80_000  # samples in 40 ms


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return default_model()


@pytest.fixture(scope="module")
def engine(model: ModelFile) -> Iterator[Engine]:
    with load_engine(model) as engine:
        yield engine


def noise(count: int) -> NDArray[np.complex64]:
    return np.random.default_rng(3).standard_normal((count, 2), np.float32).view(np.complex64)[:, 0]


def blocks(samples: NDArray[np.complex64], size: int) -> Iterator[IQBlock]:
    for start in range(0, len(samples), size):
        yield IQBlock(samples[start : start + size], start, RATE, 1e9, received=time.monotonic())


def run(engine: Engine, model: ModelFile, stream: Iterator[IQBlock], batch: int = 8) -> list[Analysed]:
    return list(analyse(stream, engine, model.contract, PipelineSettings(batch=batch), PipelineStatistics()))


def test_every_window_comes_out_once_and_in_order(engine: Engine, model: ModelFile) -> None:
    statistics = PipelineStatistics()
    samples = noise(6 * WINDOW)
    found = list(analyse(blocks(samples, 4096), engine, model.contract, PipelineSettings(), statistics))
    starts = [analysed.mask.sample_start for analysed in found]
    assert starts == [*range(0, 5 * WINDOW, 60_000), 5 * WINDOW]
    assert found[-1].mask.sample_end == 6 * WINDOW
    assert all(analysed.mask.frequency == 1e9 for analysed in found)
    assert statistics.samples == len(samples)
    assert statistics.windows == len(found) == len(statistics.sample_ages)
    percentiles = statistics.age_percentiles()
    assert percentiles is not None
    assert 0 < percentiles[0] <= percentiles[1] <= percentiles[2]


def test_probabilities_sum_to_one_and_fit_the_picture(engine: Engine, model: ModelFile) -> None:
    (analysed,) = run(engine, model, blocks(noise(WINDOW // 2), 10_000))
    assert analysed.picture.shape == analysed.mask.probabilities.shape[:2] == (128, 256)
    np.testing.assert_allclose(analysed.mask.probabilities.sum(axis=2), 1, atol=1e-3)


@pytest.mark.parametrize("size", [777, 30_000, 1_000_000])
def test_the_answer_does_not_depend_on_blocks_or_batches(engine: Engine, model: ModelFile, size: int) -> None:
    samples = noise(5 * WINDOW)
    expected = run(engine, model, blocks(samples, 8192), batch=1)
    found = run(engine, model, blocks(samples, size), batch=5)
    assert [a.mask.sample_start for a in found] == [a.mask.sample_start for a in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.mask.probabilities, other.mask.probabilities)


def test_a_wide_band_is_cut_into_tiles_and_joined(engine: Engine, model: ModelFile) -> None:
    samples = noise(4_000_000)
    stream = iter([IQBlock(samples, 0, 100e6)])
    (analysed,) = run(engine, model, stream)
    assert analysed.mask.probabilities.shape == (256, 512, len(model.contract.labels))
    assert analysed.mask.bin_width == pytest.approx(100e6 / 512)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_sample_that_is_no_number_is_named(engine: Engine, model: ModelFile, bad: float) -> None:
    samples = noise(3 * WINDOW)
    samples[2 * WINDOW + 123] = bad
    found = []
    stream = analyse(blocks(samples, 9000), engine, model.contract, PipelineSettings(), PipelineStatistics())
    with pytest.raises(StreamError, match=f"sample {2 * WINDOW + 123} is NaN"):
        found.extend(analysed.mask.sample_start for analysed in stream)
    assert found == [0, 60_000]  # what came before is not lost


def test_a_rate_outside_the_model_is_refused(engine: Engine, model: ModelFile) -> None:
    with pytest.raises(SpecMismatch, match=r"0\.5 MS/s"):
        run(engine, model, iter([IQBlock(noise(100), 0, 0.5e6)]))


def test_a_failing_source_is_heard_and_leaves_no_thread(engine: Engine, model: ModelFile) -> None:
    def failing() -> Iterator[IQBlock]:
        yield from blocks(noise(2 * WINDOW), WINDOW)
        raise StreamError("the antenna fell off")

    before = threading.active_count()
    with pytest.raises(StreamError, match="fell off"):
        run(engine, model, failing())
    assert threading.active_count() == before


def test_leaving_early_stops_the_source(engine: Engine, model: ModelFile) -> None:
    closed = threading.Event()

    def endless() -> Iterator[IQBlock]:
        try:
            samples = noise(WINDOW)
            position = 0
            while True:
                yield IQBlock(samples, position, RATE)
                position += WINDOW
        finally:
            closed.set()

    stream = analyse(endless(), engine, model.contract, PipelineSettings(), PipelineStatistics())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert closed.wait(10)


def test_threads_take_short_turns_while_it_runs_and_then_as_before(engine: Engine, model: ModelFile) -> None:
    before = sys.getswitchinterval()
    stream = analyse(
        blocks(noise(3 * WINDOW), WINDOW), engine, model.contract, PipelineSettings(), PipelineStatistics()
    )
    next(stream)
    assert sys.getswitchinterval() == pytest.approx(TURN)
    list(stream)
    assert sys.getswitchinterval() == before


def test_turns_stay_short_until_the_last_of_several_analyses_ends(engine: Engine, model: ModelFile) -> None:
    before = sys.getswitchinterval()
    first, second = (
        analyse(blocks(noise(WINDOW), WINDOW), engine, model.contract, PipelineSettings(), PipelineStatistics())
        for _ in range(2)
    )
    next(first)
    next(second)
    list(first)
    assert sys.getswitchinterval() == pytest.approx(TURN)
    second.close()  # type: ignore[attr-defined]
    assert sys.getswitchinterval() == before
