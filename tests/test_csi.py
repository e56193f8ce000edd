# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rfvit_rt.csi import (
    CSISpec,
    CSIWindow,
    bin_width_feature,
    compensated_amplitude,
    csi_picture,
    csi_windows,
    picture_of,
)
from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import ModelError, SpecMismatch

SPEC = CSISpec(n_steps=16, n_bins=24, frame_rate=20, stride=2, bands=3, amplitude_bins=12, doppler_steps=15)
DEVICE = "made for tests"


def frames(
    times: Iterable[float],
    amplitudes: NDArray[np.float64] | None = None,
    shape: tuple[int, int] = (1, 4),
    **changes: object,
) -> Iterator[CSIFrame]:
    """Frames at those times; amplitudes are (frame, antenna, subcarrier), or rise by 1 each second."""
    for index, time in enumerate(times):
        values = np.full(shape, 5 + time) if amplitudes is None else amplitudes[index]
        csi = (values * np.exp(1j * index)).astype(np.complex64)  # the phase of single frames means nothing
        subcarriers = np.arange(csi.shape[1], dtype=np.int16)
        yield dataclasses.replace(
            CSIFrame(csi, subcarriers, float(time), index, DEVICE, received=float(index)), **changes
        )  # type: ignore[arg-type]


def regular(seconds: float, rate: float = 20.0, start: float = 100.0) -> NDArray[np.float64]:
    return start + np.arange(round(seconds * rate) + 1) / rate


# ---- the spec ----


def test_a_spec_survives_json():
    assert CSISpec(**json.loads(json.dumps(dataclasses.asdict(SPEC)))) == SPEC
    assert (SPEC.window_steps, SPEC.window_seconds, SPEC.doppler_bins) == (32, 1.6, 12)
    assert bin_width_feature(SPEC) == pytest.approx(-1)  # log10 of 0.1 s


@pytest.mark.parametrize(
    "changes",
    [
        {"n_steps": 0},
        {"n_steps": 5000},
        {"n_bins": 25},  # 13 Doppler bins do not fall into 3 bands
        {"frame_rate": float("nan")},
        {"frame_rate": True},
        {"frame_rate": 5.0},  # below min_frame_rate
        {"max_gap": 0},
        {"max_gap": 2.0},  # as long as what is between two senders
        {"max_gap": 1.7},  # longer than a window
        {"amplitude_bins": 48},
        {"amplitude_bins": 10},
        {"gain": "agc"},
        {"gain": 1},
        {"doppler_steps": 16},
        {"doppler_steps": 33},
        {"picture_min": 4.0},
        {"antennas": -1},
        {"keep_static": 1},
        {"n_steps": 16.0},
    ],
    ids=str,
)
def test_a_spec_that_cannot_be_is_refused(changes):
    with pytest.raises(ModelError):
        dataclasses.replace(SPEC, **changes)


# ---- windows ----


def test_windows_lie_on_an_even_grid_and_tell_where_they_are():
    windows = list(csi_windows(frames(regular(4)), SPEC, 0.5))
    assert [window.time_start for window in windows] == pytest.approx([100, 100.5, 101, 101.5, 102])
    window = windows[1]
    assert window.amplitude.shape == (32, 1, 4)
    assert window.amplitude.dtype == np.float32
    # A ramp's mean over a step is its value in the middle.
    np.testing.assert_allclose(window.amplitude[:, 0, 0], 5 + 100.5 + (np.arange(32) + 0.5) / 20, rtol=1e-6)
    assert (window.time_end, window.frame_start, window.lost, window.device) == (pytest.approx(102.1), 10, 0, DEVICE)
    assert window.frame_count == 32
    assert window.frame_rate == pytest.approx(20)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.001, 0.45), min_size=40, max_size=80), st.integers(0, 2**32 - 1))
def test_a_ramp_is_a_ramp_however_frames_arrive(steps, seed):
    times = np.cumsum(steps)
    spec = dataclasses.replace(SPEC, min_frame_rate=0.1)
    for window in csi_windows(frames(times), spec, 0.8):
        middles = window.time_start + (np.arange(32) + 0.5) / 20
        np.testing.assert_allclose(window.amplitude[:, 0, 0], 5 + middles, rtol=1e-5)
        inside = (times >= window.time_start) & (times < window.time_end)
        assert window.frame_count - window.lost == np.count_nonzero(inside)


def test_many_frames_in_a_step_are_averaged():
    rng = np.random.default_rng(1)
    times = regular(2, rate=400.0)
    noisy = 10 + rng.normal(0, 1, (len(times), 1, 4))
    window = next(csi_windows(frames(times, noisy), SPEC, 1.6))
    assert window.amplitude.std() == pytest.approx(1 / np.sqrt(20), rel=0.2)


def test_a_window_comes_with_its_last_frame():
    taken: list[int] = []

    def watched() -> Iterator[CSIFrame]:
        for frame in frames(regular(4)):
            taken.append(frame.frame_index)
            yield frame

    windows = csi_windows(watched(), SPEC, 0.4)
    for number in range(3):
        window = next(windows)
        last = taken[-1]
        assert window.received == last
        assert 100 + last / 20 == pytest.approx(100 + 1.6 + number * 0.4)


def test_cut_streams_give_no_window_across_the_cut():
    long = regular(2)
    later = regular(2, start=110.0)
    gap = [*frames(long), *(dataclasses.replace(frame, frame_index=frame.frame_index + 100) for frame in frames(later))]
    windows = list(csi_windows(gap, SPEC, 0.2))
    assert {window.segment for window in windows} == {0, 1}
    assert all(window.time_end <= 102.01 or window.time_start >= 110 for window in windows)
    assert all(window.lost == 0 for window in windows)


@pytest.mark.parametrize("change", ["device", "subcarriers", "backwards", "recount", "antennas"])
def test_whatever_interrupts_a_stream_starts_a_new_window(change):
    first = list(frames(regular(1)))
    times = regular(1, start=95.0 if change == "backwards" else 101.05)
    shape = (2, 4) if change == "antennas" else (1, 4)
    rest = list(frames(times, shape=shape))
    for index, frame in enumerate(rest):
        changes = {"device": {"device": "another"}, "subcarriers": {"subcarriers": frame.subcarriers + 1}}.get(
            change, {}
        )
        count = index if change == "recount" else index + len(first)
        rest[index] = dataclasses.replace(frame, frame_index=count, **changes)
    assert not list(csi_windows([*first, *rest], SPEC, 0.2))
    uncut = [
        dataclasses.replace(frame, frame_index=index + len(first))
        for index, frame in enumerate(frames(regular(1, start=101.05)))
    ]
    assert list(csi_windows([*first, *uncut], SPEC, 0.2))


def test_lost_frames_are_counted():
    stream = [frame for frame in frames(regular(3)) if frame.frame_index not in (5, 6, 7, 40)]
    windows = list(csi_windows(stream, SPEC, 1.0))
    assert [(window.frame_start, window.frame_count, window.lost) for window in windows] == [(0, 32, 3), (20, 32, 1)]


def test_too_few_frames_are_refused():
    with pytest.raises(SpecMismatch, match=r"5\.\d frames/s, the model needs at least 10"):
        list(csi_windows(frames(regular(10, rate=5.0)), SPEC, 1.0))


def test_a_stream_of_gaps_alone_is_refused():
    with pytest.raises(SpecMismatch, match="interrupted 16 times"):
        list(csi_windows(frames(regular(60, rate=1.0)), SPEC, 1.0))


def test_another_shape_than_the_models_is_refused():
    spec = dataclasses.replace(SPEC, antennas=3)
    with pytest.raises(SpecMismatch, match="1 antennas, the model takes 3"):
        list(csi_windows(frames(regular(2)), spec, 1.0))
    with pytest.raises(SpecMismatch, match="4 subcarriers, the model takes 52"):
        list(csi_windows(frames(regular(2)), dataclasses.replace(SPEC, subcarriers=52), 1.0))
    with pytest.raises(SpecMismatch, match="at most 4096"):
        list(csi_windows(frames(regular(2), shape=(9, 512)), SPEC, 1.0))


def test_a_flood_within_one_step_keeps_no_more_memory():
    def flood() -> Iterator[CSIFrame]:
        for index in range(4_000):
            yield CSIFrame(np.ones((1, 4), np.complex64), np.arange(4, dtype=np.int16), 1 + index * 1e-6, index, DEVICE)

    windows = csi_windows(flood(), SPEC, 1.0)
    tracemalloc.start()
    assert not list(windows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000


def test_a_hop_longer_than_a_window_is_refused():
    with pytest.raises(ValueError, match="must be 1 to 32"):
        next(csi_windows(frames(regular(2)), SPEC, 1.7))


# ---- gain ----


def test_amplitudes_follow_the_received_power_not_the_gain():
    spec = CSISpec()
    csi = np.array([[3 + 4j, 5], [5, 5j]], np.complex64)
    rssi = np.array([-40.0, -40.0], np.float32)
    frame = CSIFrame(csi, np.arange(2, dtype=np.int16), 0.0, 0, DEVICE, rssi)
    amplitude = compensated_amplitude(frame, spec)
    assert float(np.mean(amplitude**2)) == pytest.approx(2e-4, rel=1e-5)  # mW: twice -40 dBm
    louder = dataclasses.replace(frame, csi=csi * 3)
    np.testing.assert_allclose(compensated_amplitude(louder, spec), amplitude, rtol=1e-6)
    np.testing.assert_allclose(
        compensated_amplitude(frame, dataclasses.replace(spec, gain="none")), np.full((2, 2), 5.0)
    )
    silent = dataclasses.replace(frame, csi=np.zeros_like(csi))
    assert not compensated_amplitude(silent, spec).any()


# ---- pictures ----


def moving(frequency: float, depth: float = 0.1, antennas: int = 3, subcarriers: int = 8) -> NDArray[np.float32]:
    """Amplitudes of a walk: every subcarrier beats at one Doppler frequency, with a phase of its own."""
    time = (np.arange(SPEC.window_steps) + 0.5)[:, None, None] / SPEC.frame_rate
    phase = np.linspace(0, 5, antennas * subcarriers).reshape(1, antennas, subcarriers)
    return (10 * (1 + depth * np.sin(2 * np.pi * frequency * time + phase))).astype(np.float32)


def test_doppler_bins_show_the_frequency_and_the_depth_of_a_beat():
    spec = dataclasses.replace(SPEC, amplitude_bins=0, n_bins=48, doppler_steps=31, picture_max=9.0, picture_min=-9.0)
    picture = picture_of(moving(5.0), spec)
    band = picture[:, :16]
    assert (band.argmax(axis=1) == 8).all()  # 16 bins to 10 Hz
    # In the middle, where the taper lies within the window, the peak is that of the tapered sine.
    taper = np.hanning(33)[1:-1]
    expected = 10 * np.log10((0.1 / 2) ** 2 * taper.sum() ** 2 / np.sum(taper**2))
    assert band[8, 8] * spec.doppler_scale + spec.doppler_floor == pytest.approx(expected, abs=0.3)


def test_each_band_shows_its_own_antenna():
    amplitude = np.full((32, 3, 8), 10, np.float32)
    amplitude[:, 1] = moving(5.0)[:, 1]
    picture = picture_of(amplitude, SPEC)
    doppler, change = picture[:, :12].reshape(16, 3, 4), picture[:, 12:].reshape(16, 3, 4)
    assert (doppler[:, 1].max(axis=1) > 0).all()
    assert (doppler[:, [0, 2]] == SPEC.picture_min).all()
    assert change[:, 1].any()
    assert np.abs(change[:, [0, 2]]).max() < 1e-4


def test_neither_gain_nor_the_static_part_shows():
    amplitude = moving(3.0)
    picture = picture_of(amplitude, SPEC)
    np.testing.assert_allclose(picture_of(amplitude * 7, SPEC), picture, atol=2e-3)
    still = np.broadcast_to(np.linspace(1, 9, 24, dtype=np.float32).reshape(1, 3, 8), (32, 3, 8))
    assert np.abs(picture_of(still, SPEC)[:, 12:]).max() < 1e-4
    kept = picture_of(still, dataclasses.replace(SPEC, keep_static=True))[:, 12:]
    assert (np.diff(kept[0]) >= 0).all()
    assert np.ptp(kept[0]) > 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 52), (1, 56), (3, 30), (3, 114), (4, 242)], ids=str)
def test_any_device_fits_the_grid(shape):
    rng = np.random.default_rng(3)
    window = CSIWindow(
        rng.uniform(1, 2, (32, *shape)).astype(np.float32),
        np.arange(shape[1], dtype=np.int16),
        0,
        1.6,
        0,
        32,
        0,
        20,
        "",
        0,
    )
    picture = csi_picture(window, SPEC)
    assert picture.shape == (16, 24)
    assert picture.dtype == np.float32
    assert np.isfinite(picture).all()
    assert SPEC.picture_min <= picture.min() < picture.max() <= SPEC.picture_max


def test_a_silent_device_gives_a_picture_too():
    picture = picture_of(np.zeros((32, 1, 52), np.float32), SPEC)
    assert (picture[:, :12] == SPEC.picture_min).all()
    assert not picture[:, 12:].any()
