# SPDX-License-Identifier: Apache-2.0
"""Synthetic masks with known rectangles, cut to a stream in every way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from rfvit_rt.datatypes import Annotation, Mask
from rfvit_rt.segments import BLOCK_STEPS, SegmentSettings, annotate

LABELS = ("background", "LTE", "NR")
RATE = 25.6e6  # 256 bins of 100 kHz, steps of 4000 samples
STEP = 4000
BINS = 256
FREQUENCY = 2e9
LOWEST = FREQUENCY - RATE / 2 - RATE / BINS / 2  # lower edge of the lowest bin, whose centre is at half the rate below


def empty(steps: int, bins: int = BINS) -> NDArray[np.float32]:
    probabilities = np.zeros((steps, bins, len(LABELS)), np.float32)
    probabilities[:, :, 0] = 1
    return probabilities


def paint(probabilities: NDArray[np.float32], times: slice, bins: slice, label: int, probability: float = 0.9) -> None:
    probabilities[times, bins] = 0
    probabilities[times, bins, 0] = 1 - probability
    probabilities[times, bins, label] = probability


def mask(
    probabilities: NDArray[np.float32],
    start: int = 0,
    frequency: float | None = FREQUENCY,
    rate: float = RATE,
    step: float = STEP,
) -> Mask:
    return Mask(probabilities, start, round(len(probabilities) * step), rate, frequency)


def chunks(whole: Mask, sizes: list[int]) -> Iterator[Mask]:
    """Cut a mask to pieces of the given sizes in steps, and the rest."""
    step = whole.sample_count / whole.step_count
    at = 0
    for size in [*sizes, whole.step_count]:
        end = min(at + size, whole.step_count)
        if end > at:
            first, last = round(at * step), round(end * step)
            yield replace(
                whole,
                probabilities=whole.probabilities[at:end],
                sample_start=whole.sample_start + first,
                sample_count=last - first,
            )
        at = end


def only(annotations: Iterator[Annotation]) -> Annotation:
    (annotation,) = annotations
    return annotation


def test_a_rectangle_becomes_its_box() -> None:
    picture = empty(256)
    paint(picture, slice(40, 140), slice(28, 128), 1, 0.875)
    box = only(annotate([mask(picture, 1000)], LABELS))
    assert box == Annotation(
        label="LTE",
        sample_start=1000 + 40 * STEP,
        sample_count=100 * STEP,
        freq_lower_edge=LOWEST + 28 * 100e3,
        freq_upper_edge=LOWEST + 128 * 100e3,
        confidence=0.875,
        sample_rate=RATE,
        frequency=FREQUENCY,
    )


@pytest.mark.parametrize("frequency", [FREQUENCY, None])
def test_no_box_reaches_beyond_the_band(frequency: float | None) -> None:
    picture = empty(64)
    paint(picture, slice(0, 64), slice(0, BINS), 2)
    box = only(annotate([mask(picture, frequency=frequency)], LABELS))
    assert box.freq_lower_edge == (frequency or 0) - RATE / 2
    assert box.freq_upper_edge == (frequency or 0) + RATE / 2 - RATE / BINS / 2


def test_unknown_frequency_gives_edges_relative_to_the_centre() -> None:
    picture = empty(64)
    paint(picture, slice(0, 64), slice(128, 178), 2)
    box = only(annotate([mask(picture, frequency=None)], LABELS))
    assert (box.freq_lower_edge, box.freq_upper_edge, box.frequency) == (-50e3, 4.95e6, None)


def test_a_band_about_the_centre_has_edges_about_the_centre() -> None:
    picture = empty(256)
    paint(picture, slice(0, 100), slice(128 - 20, 128 + 21), 1)  # the centre of bin 128 is the centre frequency
    box = only(annotate([mask(picture)], LABELS))
    assert box.freq_upper_edge - FREQUENCY == FREQUENCY - box.freq_lower_edge == pytest.approx(2.05e6)


@pytest.mark.parametrize("start", [256 * STEP, 0])
def test_segments_are_told_apart_by_their_number(start: int) -> None:
    """After a loss in the radio positions go on; after a restart they begin again."""
    picture = empty(256)
    paint(picture, slice(0, 256), slice(20, 60), 1)
    masks = [mask(picture), replace(mask(picture, start), segment=1)]
    assert [box.sample_start for box in annotate(masks, LABELS)] == [0, start]


def test_background_alone_gives_nothing() -> None:
    assert not list(annotate([mask(empty(256))] * 2, LABELS))
    assert not list(annotate([], LABELS))


def test_dots_become_one_box() -> None:
    """An idle LTE carrier: reference signals in every third step, with holes, and the TDD uplink silent."""
    picture = empty(512)
    random = np.random.default_rng(3)
    dots = random.random((512, 90)) < 0.5
    dots[np.arange(512) % 3 != 0] = False
    dots[np.arange(512) % 32 >= 16] = False  # 2.5 of every 5 ms
    dots[0] = True
    picture[:, 50:140][dots] = [0.2, 0.8, 0.0]
    box = only(annotate([mask(picture)], LABELS))
    assert box.label == "LTE"
    assert box.sample_start == 0
    assert box.sample_end == (np.flatnonzero(dots.any(axis=1))[-1] + 1) * STEP
    assert box.freq_upper_edge - box.freq_lower_edge == 9e6
    assert box.confidence == pytest.approx(0.8)


def test_bursts_20_ms_apart_are_separate_and_6_ms_apart_are_one() -> None:
    picture = empty(512)
    for start in (0, 128, 256, 384):
        paint(picture, slice(start, start + 3), slice(100, 136), 2)
    assert [box.sample_start // STEP for box in annotate([mask(picture)], LABELS)] == [0, 128, 256, 384]
    gap = round(6e-3 / 156.25e-6)
    for silence, count in ((gap, 1), (gap + 1, 2)):
        picture = empty(512)
        for start in (100, 103 + silence):
            paint(picture, slice(start, start + 3), slice(100, 136), 2)
        assert len(list(annotate([mask(picture)], LABELS))) == count


def test_neighbouring_carriers_stay_two() -> None:
    picture = empty(256)
    paint(picture, slice(0, 256), slice(20, 110), 1)  # 9 of 10 MHz each, 1 MHz guard
    paint(picture, slice(0, 256), slice(120, 210), 1)
    boxes = list(annotate([mask(picture)], LABELS))
    lowest = LOWEST
    assert [(box.freq_lower_edge - lowest, box.freq_upper_edge - lowest) for box in boxes] == [
        (2e6, 11e6),
        (12e6, 21e6),
    ]


def test_stray_pixels_neither_widen_a_box_nor_join_two() -> None:
    picture = empty(256)
    paint(picture, slice(0, 256), slice(20, 110), 1)
    paint(picture, slice(0, 256), slice(120, 210), 1)
    paint(picture, slice(50, 52), slice(110, 120), 1)  # a bridge for 2 of 256 steps
    paint(picture, slice(90, 91), slice(15, 20), 1)
    boxes = list(annotate([mask(picture)], LABELS))
    lowest = LOWEST
    assert [(box.freq_lower_edge - lowest, box.freq_upper_edge - lowest) for box in boxes] == [
        (2e6, 11e6),
        (12e6, 21e6),
    ]


def test_stray_pixels_do_not_take_a_short_carrier_away() -> None:
    picture = empty(2560)
    paint(picture, slice(0, 2560), slice(20, 110), 1)
    paint(picture, slice(1000, 1200), slice(120, 210), 1)  # less than a tenth as long as its neighbour
    paint(picture, slice(1050, 1051), slice(114, 116), 1)  # closed over frequency, these tie the two
    long, short = sorted(annotate([mask(picture)], LABELS), key=lambda box: box.freq_lower_edge)
    assert (long.sample_start, long.sample_count) == (0, 2560 * STEP)
    assert (short.sample_start, short.sample_count) == (1000 * STEP, 200 * STEP)
    assert (short.freq_lower_edge - LOWEST, short.freq_upper_edge - LOWEST) == (12e6, 21e6)


def test_what_is_scattered_beside_a_long_carrier_is_no_box() -> None:
    picture = empty(2560)
    paint(picture, slice(0, 2560), slice(20, 110), 1)
    rng = np.random.default_rng(1)
    for step in rng.choice(2560, 250, replace=False):  # a tenth of the time, in 60 bins beside it
        paint(picture, slice(step, step + 1), slice(110, 170), 1)
    paint(picture, slice(500, 510), slice(120, 140), 1)  # and once in a row
    box = only(annotate([mask(picture)], LABELS, SegmentSettings(edge_share=0.2)))
    assert (box.freq_lower_edge - LOWEST, box.freq_upper_edge - LOWEST) == (2e6, 11e6)


def test_a_long_signal_that_is_never_certain_is_none() -> None:
    picture = empty(25_600, 64)
    paint(picture, slice(0, 25_600), slice(20, 50), 1, 0.55)
    assert not list(annotate([mask(picture)], LABELS))
    paint(picture, slice(15_000, 15_010), slice(20, 50), 1, 0.9)  # in the third piece of four
    first, second = annotate([mask(picture)], LABELS)
    assert (first.sample_start, second.sample_end) == (12_800 * STEP, 25_600 * STEP)


def test_lte_beside_nr_without_guard() -> None:
    picture = empty(256)
    paint(picture, slice(0, 256), slice(20, 110), 1)
    paint(picture, slice(0, 256), slice(110, 200), 2)
    assert [(box.label, box.freq_lower_edge) for box in annotate([mask(picture)], LABELS)] == [
        ("LTE", LOWEST + 2e6),
        ("NR", LOWEST + 11e6),
    ]


def test_hysteresis() -> None:
    picture = empty(256)
    paint(picture, slice(0, 100), slice(20, 60), 1, 0.55)  # stays below `enter` throughout
    paint(picture, slice(0, 100), slice(120, 160), 1, 0.52)  # reaches it once
    paint(picture, slice(50, 60), slice(130, 140), 1, 0.7)
    lenient = SegmentSettings(min_confidence=0.0)
    box = only(annotate([mask(picture)], LABELS, lenient))
    assert (box.sample_start, box.sample_count) == (0, 100 * STEP)
    assert box.freq_lower_edge == LOWEST + 12e6
    assert box.confidence == pytest.approx((3900 * 0.52 + 100 * 0.7) / 4000)
    strict = only(annotate([mask(picture)], LABELS, replace(lenient, stay=0.55)))
    assert (strict.sample_start, strict.sample_count) == (50 * STEP, 10 * STEP)


@pytest.mark.parametrize(
    ("times", "bins", "probability"),
    [
        (slice(10, 11), slice(100, 115), 0.9),  # 15 pixels
        (slice(10, 60), slice(100, 101), 0.9),  # 100 kHz
        (slice(10, 60), slice(100, 150), 0.45),  # below min_confidence
    ],
)
def test_specks_are_dropped(times: slice, bins: slice, probability: float) -> None:
    picture = empty(128)
    paint(picture, times, bins, 1, probability)
    paint(picture, slice(times.start, times.start + 1), slice(bins.start, bins.start + 1), 1, 0.7)
    assert not list(annotate([mask(picture)], LABELS))


@pytest.mark.parametrize(("probability", "label"), [(0.45, "other"), (0.55, "LTE")])
def test_a_name_that_is_more_likely_wrong_than_right_is_not_given(probability: float, label: str) -> None:
    picture = np.zeros((128, 256, 4), np.float32)
    picture[:, :, 0] = 1
    picture[10:60, 100:150] = (0.2, probability, 0.6 - probability, 0.2)
    box = only(annotate([mask(picture)], ["background", "LTE", "NR", "other"]))
    assert (box.label, box.confidence) == (label, pytest.approx(probability))
    nameless = only(annotate([mask(picture)], ["background", "LTE", "NR", "WLAN"]))  # has no word for doubt
    assert nameless.label == "LTE"


def test_min_duration() -> None:
    picture = empty(128)
    paint(picture, slice(10, 20), slice(100, 150), 1)
    assert len(list(annotate([mask(picture)], LABELS, SegmentSettings(min_duration=10 * 156.25e-6)))) == 1
    assert not list(annotate([mask(picture)], LABELS, SegmentSettings(min_duration=11 * 156.25e-6)))


def test_a_box_across_100_masks() -> None:
    picture = empty(100 * 64)
    paint(picture, slice(30, 100 * 64 - 30), slice(100, 150), 1)
    pieces = [mask(picture[i * 64 : (i + 1) * 64], i * 64 * STEP) for i in range(100)]
    box = only(annotate(pieces, LABELS, SegmentSettings(max_duration=10)))
    assert (box.sample_start, box.sample_end) == (30 * STEP, (100 * 64 - 30) * STEP)


def test_an_endless_carrier_is_reported_while_it_lasts() -> None:
    def endless() -> Iterator[Mask]:
        picture = empty(256, 32)
        paint(picture, slice(0, 256), slice(4, 28), 1)
        for i in range(100):
            yield mask(picture, i * 256 * STEP, rate=RATE)

    wanted = SegmentSettings(max_duration=1.0)
    boxes = list(annotate(endless(), LABELS, wanted))
    assert [box.sample_count for box in boxes] == [6400 * STEP] * 4  # 25,600 steps
    assert all(one.sample_end == next_one.sample_start for one, next_one in pairwise(boxes))
    source = endless()
    next(annotate(source, LABELS, wanted))
    assert next(source).sample_start <= (6400 + BLOCK_STEPS + 512) * STEP  # it did not wait for more


def test_the_short_end_of_a_long_box_is_kept() -> None:
    picture = empty(BLOCK_STEPS + 10)
    paint(picture, slice(0, BLOCK_STEPS + 2), slice(100, 150), 1)
    hurried = SegmentSettings(max_duration=BLOCK_STEPS * 156.25e-6, min_duration=1e-3)
    boxes = list(annotate([mask(picture)], LABELS, hurried))
    assert [box.sample_count for box in boxes] == [BLOCK_STEPS * STEP, 2 * STEP]


@pytest.mark.parametrize(
    "second",
    [
        {"start": 64 * STEP + 2000},
        {"start": 64 * STEP, "frequency": 2.1e9},
        {"start": 64 * STEP, "rate": 20e6},
    ],
)
def test_no_box_across_a_gap_or_retune(second: dict[str, float]) -> None:
    picture = empty(64)
    paint(picture, slice(0, 64), slice(100, 150), 1)
    one, other = annotate([mask(picture), mask(picture, **second)], LABELS)
    assert (one.sample_start, one.sample_end) == (0, 64 * STEP)
    assert (other.sample_start, other.sample_end) == (second["start"], second["start"] + 64 * STEP)
    assert other.frequency == second.get("frequency", FREQUENCY)


def test_labels_must_fit_the_masks() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        list(annotate([mask(empty(8))], ("background", "LTE")))


def random_picture(seed: int, steps: int, bins: int = 48) -> NDArray[np.float32]:
    """Blobs, bursts and specks at random."""
    random = np.random.default_rng(seed)
    picture = empty(steps, bins)
    for _ in range(random.integers(0, 40)):
        at, low = random.integers(0, steps), random.integers(0, bins)
        times, band = slice(at, at + random.geometric(0.03)), slice(low, low + random.geometric(0.15))
        paint(picture, times, band, int(random.integers(1, 3)), float(random.uniform(0.3, 1)))
    holes = random.random((steps, bins)) < random.uniform(0, 0.9)
    picture[holes] = [1, 0, 0]
    return picture


SENSITIVE = SegmentSettings(min_duration=0, min_bandwidth=0, min_pixels=1, min_confidence=0)


@given(st.integers(0, 10_000), st.lists(st.integers(1, 300), max_size=12), st.sampled_from([0.02, 0.05, 9.0]))
@settings(max_examples=60, deadline=None)
def test_cutting_the_stream_to_masks_leaves_no_trace(seed: int, sizes: list[int], max_duration: float) -> None:
    whole = mask(random_picture(seed, 700), 12345)
    wanted = replace(SENSITIVE, max_duration=max_duration)
    assert list(annotate(chunks(whole, sizes), LABELS, wanted)) == list(annotate([whole], LABELS, wanted))


def test_cutting_fractional_steps_moves_nothing_by_more_than_a_sample() -> None:
    whole = mask(random_picture(5, 700), rate=2e6, step=312.5)
    cut, uncut = (list(annotate(masks, LABELS, SENSITIVE)) for masks in (chunks(whole, [1, 2, 3, 101] * 9), [whole]))
    assert len(uncut) > 5
    for one, other in zip(cut, uncut, strict=True):
        assert abs(one.sample_start - other.sample_start) <= 1
        assert abs(one.sample_end - other.sample_end) <= 1
        assert replace(one, sample_start=0, sample_count=0) == replace(other, sample_start=0, sample_count=0)


def regions_of_whole_picture(picture: NDArray[np.float32], gap: int, frequency_gap: int) -> list[tuple[str, int, int]]:
    """First and last step of every region, by SciPy's closing on the whole picture at once."""
    found = []
    for label in (1, 2):
        labelled = (picture[:, :, 1:].argmax(axis=2) + 1 == label) & (picture[:, :, 0] <= 0.5)
        padded = np.pad(labelled, ((gap, gap), (frequency_gap, frequency_gap)))
        closed = ndimage.binary_closing(padded, np.ones((gap + 1, 1)))
        closed = ndimage.binary_closing(closed, np.ones((1, frequency_gap + 1)))
        pieces, count = ndimage.label(closed)
        pieces[~padded] = 0
        for box in ndimage.find_objects(pieces, count):
            found.append((LABELS[label], box[0].start - gap, box[0].stop - gap))
    return sorted(found)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_regions_are_those_of_the_whole_picture(seed: int) -> None:
    picture = random_picture(seed, 500)
    # Thresholds off and one box a region, so that every region shows.
    plain = replace(SENSITIVE, enter=0.5, edge_share=0.0, time_gap=10 * 156.25e-6, frequency_gap=3 * RATE / 48)
    wanted = regions_of_whole_picture(picture, 10, 3)
    found = sorted(
        (box.label, box.sample_start // STEP, box.sample_end // STEP)
        for box in annotate([mask(picture)], LABELS, plain)
    )
    assert found == wanted


def test_a_signal_whose_class_is_in_doubt_is_reported_with_its_low_confidence() -> None:
    picture = empty(256)
    picture[0:200, 50:100] = (0.1, 0.48, 0.42)
    box = only(annotate([mask(picture)], LABELS))
    assert box.label == "LTE"
    assert box.confidence == pytest.approx(0.48)


@pytest.mark.parametrize(
    "wrong", [{"enter": 1.1}, {"enter": 0.3}, {"stay": -0.1}, {"time_gap": -1}, {"max_duration": 0}, {"edge_share": 2}]
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        SegmentSettings(**wrong)
