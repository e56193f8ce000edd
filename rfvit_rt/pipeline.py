# SPDX-License-Identifier: Apache-2.0
"""Blocks in, masks out: the only place that knows batching, threads and latency."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.contract import ModelContract
from rfvit_rt.datatypes import IQBlock, Mask, Window
from rfvit_rt.engines import Engine, prove_iq
from rfvit_rt.errors import SpecMismatch, StreamError
from rfvit_rt.figures import Histogram
from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature, join_tiles, noise_floor, picture, power, tiles
from rfvit_rt.windowing import windows

Item = TypeVar("Item")

KEPT_AGES = 100_000  # the newest sample ages that percentiles are taken over
TURN = 0.5e-3  # s: how long a thread keeps Python's lock where others want it
STAGES = ("windowing", "spectrogram", "inference", "results")


@dataclass(frozen=True)
class PipelineSettings:
    """How the stream is cut and gathered.

    Attributes
    ----------
    hop_steps : int
        Time steps between the starts of neighbouring windows; less than a window makes them overlap.
    batch : int
        Most windows inferred together. Windows never wait for a batch to fill: it is made of those that are ready.
    engine_makes_pictures : bool
        Hand full windows to the engine as they are. Those that were cut short, which it does not take, still become
        pictures here.
    """

    hop_steps: int = 192
    batch: int = 8
    engine_makes_pictures: bool = False

    @classmethod
    def overlapping(cls, overlap: float, n_steps: int, engine_makes_pictures: bool = False) -> Self:
        """Settings for windows of `n_steps` steps that share a part `overlap`, from 0 up to but less than 1."""
        if not 0 <= overlap < 1:
            raise SpecMismatch(f"the overlap is {overlap}, expected 0 or more and less than 1")
        return cls(max(1, round(n_steps * (1 - overlap))), engine_makes_pictures=engine_makes_pictures)


@dataclass(frozen=True, eq=False)
class Analysed:
    """A window that went through the model.

    Attributes
    ----------
    picture : (step, bin) float32
        What the model saw, in dB over the noise floor.
    mask : Mask
        What it made of it.
    ready : float
        ``time.monotonic()`` when that was done, in seconds.
    """

    picture: NDArray[np.float32]
    mask: Mask
    ready: float


@dataclass
class PipelineStatistics:
    """What went through, updated as it goes.

    Attributes
    ----------
    samples, windows : int
        Samples read from the source and windows analysed.
    sample_ages : deque of float
        Seconds from the arrival of a window's last sample to its result; the newest only.
    age_histogram : Histogram
        All of them.
    stages : dict of str to Histogram
        Seconds that a window spent in each of `STAGES`, waiting for it included. The first three make up the sample
        age; ``results`` is what the caller does with a window, and counts that itself.
    """

    samples: int = 0
    windows: int = 0
    sample_ages: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_AGES))
    age_histogram: Histogram = field(default_factory=Histogram)
    stages: dict[str, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in STAGES})

    def note(self, *times: float) -> None:
        """Take up a window, by when its last sample came and when each stage was done with it, but for the last."""
        self.windows += 1
        age = times[-1] - times[0]
        self.sample_ages.append(age)
        self.age_histogram.observe(age)
        for stage, begun, done in zip(STAGES, times, times[1:], strict=False):
            self.stages[stage].observe(done - begun)

    def age_percentiles(self) -> tuple[float, float, float] | None:
        """Sample ages that 50, 95 and 99 % of the windows stay below, in seconds; None before the first window."""
        if not self.sample_ages:
            return None
        p50, p95, p99 = np.percentile(np.fromiter(self.sample_ages, float), (50, 95, 99))
        return float(p50), float(p95), float(p99)


def analyse(
    blocks: Iterable[IQBlock],
    engine: Engine,
    contract: ModelContract,
    settings: PipelineSettings,
    statistics: PipelineStatistics,
) -> Iterator[Analysed]:
    """Run a stream through windowing, spectrogram and engine.

    Windowing, spectrograms, inference and what the caller does with the results have threads of their own, so that they
    work on successive windows at the same time; spectrograms have several.

    Parameters
    ----------
    blocks : iterable of IQBlock
        The stream; its end is the end of the analysis.
    engine : Engine
        Loaded with the model that `contract` belongs to.
    contract : ModelContract
    settings : PipelineSettings
    statistics : PipelineStatistics
        Kept up to date.

    Yields
    ------
    Analysed
        One for every window, in stream order.

    Raises
    ------
    SpecMismatch
        If the stream does not fit the model.
    StreamError
        If a sample is not a finite number.
    """
    spec = contract.spectrogram
    # The other half of the cores has the model, the receiver and the sender.
    workers = max(1, len(os.sched_getaffinity(0)) // 2)
    cut = windows(_counted(blocks, statistics), spec, settings.hop_steps)
    with _short_turns, ThreadPoolExecutor(workers, "rfvit-spectrogram") as pool:
        begun = (pool.submit(_prepare, window, spec, settings) for window in cut)
        pictures = (future.result() for futures in _waiting(begun, workers, "windowing") for future in futures)
        for results in _waiting(_inferred(pictures, engine, spec, settings, statistics), settings.batch, "inference"):
            yield from results


class _ShortTurns:
    """Lets no thread keep Python's lock for long while another waits for it, from the first analysis to the last one.

    Each stage needs it for a moment at a time. With the usual 5 ms, on two cores that other programs used as well, 2 of
    19 trials at 20 MS/s kept up; with this, 6 of 19, in turns: too few to be sure of. On cores of its own it makes no
    difference.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # an analysis that nobody ended may be collected while one begins
        self._analyses = 0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._analyses:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, TURN))
            self._analyses += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._analyses -= 1
            if not self._analyses:
                sys.setswitchinterval(self._before)


_short_turns = _ShortTurns()


def _inferred(
    pictures: Generator[_Prepared],
    engine: Engine,
    spec: SpectrogramSpec,
    settings: PipelineSettings,
    statistics: PipelineStatistics,
) -> Generator[Analysed]:
    proven: set[float] = set()  # sample rates in Hz
    for batch in _waiting(pictures, settings.batch, "spectrogram"):
        for rate in {prepared.window.sample_rate for prepared in batch if prepared.picture is None} - proven:
            prove_iq(engine, spec, rate)
            proven.add(rate)
        outputs = list(_labelled(engine, batch, spec))
        now = time.monotonic()
        for prepared, (pixels, probabilities) in zip(batch, outputs, strict=True):
            statistics.note(prepared.window.received, prepared.taken, prepared.ready, now)
            mask = _mask(prepared.window, probabilities, spec)
            yield Analysed(pixels * np.float32(spec.db_scale), mask, now)


@dataclass(frozen=True, eq=False)
class _Prepared:
    window: Window
    picture: NDArray[np.float32] | None  # (step, bin); None where the engine is to make it
    taken: float  # when the work on it began, and
    ready: float  # when it was done


def _prepare(window: Window, spec: SpectrogramSpec, settings: PipelineSettings) -> _Prepared:
    taken = time.monotonic()
    pixels = None if settings.engine_makes_pictures and _is_full_and_finite(window, spec) else _picture(window, spec)
    return _Prepared(window, pixels, taken, time.monotonic())


def _counted(blocks: Iterable[IQBlock], statistics: PipelineStatistics) -> Iterator[IQBlock]:
    for block in blocks:
        statistics.samples += len(block.samples)
        yield block


def _picture(window: Window, spec: SpectrogramSpec) -> NDArray[np.float32]:
    # A sample that is no number makes its whole spectrum so; this is far cheaper to test than the samples.
    with np.errstate(over="ignore", invalid="ignore"):
        energy = power(window.samples, window.sample_rate, spec)
    if not np.isfinite(energy).all():
        _refuse_samples(window)
    return picture(energy, noise_floor(energy, window.sample_rate, spec), spec)


def _is_full_and_finite(window: Window, spec: SpectrogramSpec) -> bool:
    """Whether an engine can make the picture; the processor makes the others, or says what is wrong with a sample."""
    if len(window.samples) < spec.window_length(window.sample_rate):
        return False
    return bool(np.isfinite(np.vdot(window.samples, window.samples)))  # one pass, and no array of its own


def _refuse_samples(window: Window) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(np.abs(window.samples) ** 2))
    where = window.sample_start + int(bad[0]) if len(bad) else window.sample_start
    raise StreamError(
        f"sample {where} is NaN, infinite or too large to square; the samples must be finite complex numbers: "
        "check the sender's item type, or cut the recording there"
    )


_Labelled = tuple[NDArray[np.float32], NDArray[np.float32]]  # (step, bin) picture, (step, bin, class) probabilities


def _labelled(engine: Engine, batch: list[_Prepared], spec: SpectrogramSpec) -> Iterator[_Labelled]:
    """Picture and class probabilities of every window, in order."""
    for (is_raw, rate), group in groupby(batch, lambda item: (item.picture is None, item.window.sample_rate)):
        prepared = list(group)
        if is_raw:
            iq = np.stack([item.window.samples for item in prepared])
            yield from zip(*engine.infer_iq(iq, rate), strict=True)
        else:
            yield from _infer(engine, [item.picture for item in prepared if item.picture is not None], rate, spec)


def _infer(
    engine: Engine, pictures: list[NDArray[np.float32]], sample_rate: float, spec: SpectrogramSpec
) -> Iterator[_Labelled]:
    inputs = [tiles(pixels, spec) for pixels in pictures]
    stacked = np.concatenate(inputs)
    outputs = engine.infer(stacked, np.full(len(stacked), bin_width_feature(sample_rate, spec), np.float32))
    ends = np.cumsum([len(i) for i in inputs])
    for part, pixels in zip(np.split(outputs, ends[:-1]), pictures, strict=True):
        yield pixels, join_tiles(part, pixels.shape[1], spec)[: len(pixels)]


def _mask(window: Window, probabilities: NDArray[np.float32], spec: SpectrogramSpec) -> Mask:
    # A window that was cut short may end with less than a step, which has no pixels.
    covered = min(len(window.samples), round(len(probabilities) * spec.step_length(window.sample_rate)))
    return Mask(probabilities, window.sample_start, covered, window.sample_rate, window.frequency, window.segment)


def _waiting(items: Generator[Item], most: int, stage: str) -> Iterator[list[Item]]:
    """Produce items in a thread, a bounded number ahead, and yield those that are ready, at least one, as a batch.

    What the producer raises reaches the caller, after the items before it.
    """
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(2 * most)
    stop = threading.Event()

    def put(item: Item | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # reaches the caller below
            put(error)
        finally:
            items.close()

    producer = threading.Thread(target=produce, name=f"rfvit-{stage}", daemon=True)
    producer.start()
    try:
        last: BaseException | None = None
        running = True
        while running:
            batch: list[Item] = []
            item = ready.get()
            while True:
                if item is None or isinstance(item, BaseException):
                    last, running = item, False
                    break
                batch.append(item)
                if len(batch) == most or ready.empty():
                    break
                item = ready.get_nowait()
            if batch:
                yield batch
        if last is not None:
            raise last
    finally:
        stop.set()
        producer.join(timeout=5)
