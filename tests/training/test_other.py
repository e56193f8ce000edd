# SPDX-License-Identifier: Apache-2.0
"""Signals without a name: each like what it stands for, its label on its energy, and real ones found in ours."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray

from training.signals import analogue, broadcast, keyed, swept
from training.signals.bursts import Bursts, Signal, gate, grid_bursts, join, occupancy, quick_rate, random_intervals
from training.signals.grid import ResourceGrid, modulate
from training.signals.grid import occupancy as grid_occupancy
from training.signals.modulation import gaussian_pulse, phasors, root_raised_cosine, shape, turns_of
from training.signals.other import KINDS, Choice, Kind, LogUniform, Uniform, random_kind

DURATION = 0.042
STEP = 156.25e-6
# The window spreads lines, tracks and short pulses over two bins more than they have; NB-IoT has broad side lobes.
SPREAD = ("tone", "comb", "OOK", "LoRa", "sweeps", "radar pulses", "NB-IoT")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def pixels(signal: Signal) -> tuple[NDArray, NDArray]:
    """Power and label in time steps of 156.25 µs, as a model sees them, and at least 16 bins."""
    n_fft = int(np.clip(2 ** np.floor(np.log2(signal.sample_rate * 78e-6)), 16, 256))
    frames = np.lib.stride_tricks.sliding_window_view(signal.samples, n_fft)[:: n_fft // 2]
    power = np.abs(np.fft.fftshift(np.fft.fft(frames * np.hanning(n_fft), axis=1), axes=1)) ** 2
    steps = np.arange(0, len(signal.samples) / signal.sample_rate, STEP)
    centres = (np.arange(len(frames)) + 1) * (n_fft // 2) / signal.sample_rate
    cuts = np.searchsorted(centres, steps)
    power = np.add.reduceat(power, cuts[:-1], axis=0)
    bins = (np.arange(n_fft + 1) - n_fft / 2 - 0.5) * signal.sample_rate / n_fft
    return power, occupancy(signal.bursts, steps, bins)


# --- All of them ---


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_has_its_energy_where_its_label_is(kind: Kind) -> None:
    inside = []
    for seed in range(6):
        signal = kind.draw(DURATION, rng(seed))
        assert signal.label == "other"
        assert signal.samples.dtype == np.complex64
        assert len(signal.samples) == round(DURATION * signal.sample_rate)
        power, mask = pixels(signal)
        if power.sum() == 0:
            assert not mask.any()
            continue
        if kind.name in SPREAD:
            mask = scipy.ndimage.binary_dilation(mask, np.ones((1, 5)))
        inside.append(power[mask].sum() / power.sum())
        assert inside[-1] > (0.9 if kind.name in SPREAD else 0.97)
        # Where it is on, its power is at most that of the strongest, which is 1.
        loud = np.abs(signal.samples) ** 2
        assert 0.02 < loud[loud > 1e-6].mean() < 1.1
    assert len(inside) >= 3


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_labels_are_not_wider_than_the_signals(kind: Kind) -> None:
    """Most of what is labelled in a signal that is on has power: not less than 35 dB under its strongest pixels."""
    filled = []
    for seed in range(6):
        power, mask = pixels(kind.draw(DURATION, rng(seed)))
        if mask.any():
            filled.append(np.mean(power[mask] > 10**-3.5 * np.quantile(power[mask], 0.95)))
    assert np.mean(filled) > 0.85


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_same_seed_gives_the_same_signal(kind: Kind) -> None:
    one, again, other = (kind.draw(DURATION, rng(seed)) for seed in (11, 11, 12))
    np.testing.assert_array_equal(one.samples, again.samples)
    np.testing.assert_array_equal(one.bursts.start, again.bursts.start)
    assert not np.array_equal(one.samples, other.samples)


def test_kinds_come_by_their_weights_and_parameters_from_their_ranges() -> None:
    names = {kind.name for kind in KINDS}
    assert len(names) == len(KINDS) >= 18
    assert 0.1 <= Uniform(0.1, 0.2).draw(rng()) <= 0.2
    generator = rng()
    values = [LogUniform(1.0, 1e4).draw(generator) for _ in range(2000)]
    assert 1 <= min(values) < 3 < 3e3 < max(values) <= 1e4
    assert np.median(values) == pytest.approx(100, rel=0.3)
    assert {Choice((1, 2, 3)).draw(generator) for _ in range(40)} == {1, 2, 3}
    drawn = {random_kind(rng(seed)).name for seed in range(300)}
    assert drawn == {kind.name for kind in KINDS}


# --- What they are made of ---


def test_occupancy_counts_a_tenth_of_a_pixel_or_of_a_burst() -> None:
    steps, bins = np.arange(5.0), np.arange(-3.0, 4.0)
    cases = [
        ((0.95, 2.5, -0.5, 0.5), {(1, 2), (1, 3), (2, 2), (2, 3)}),  # 5 % of a step before 1 does not count
        ((0.85, 1.0, 1.0, 2.0), {(0, 4)}),
        ((1.98, 2.02, -2.001, -1.999), {(1, 0), (2, 0), (1, 1), (2, 1)}),  # halves of a small burst do
        ((-9.0, 0.5, -9.0, -2.5), {(0, 0)}),  # what reaches out of the picture is cut off
        ((4.5, 5.0, 0.0, 1.0), set()),
        ((1.0, 2.0, 3.5, 9.0), set()),
    ]
    for edges, expected in cases:
        mask = occupancy(Bursts.of(*edges), steps, bins)
        assert set(map(tuple, np.argwhere(mask).tolist())) == expected, edges
    both = occupancy(join([Bursts.of(*cases[0][0]), Bursts.of(*cases[1][0])]), steps, bins)
    assert set(map(tuple, np.argwhere(both).tolist())) == cases[0][1] | cases[1][1]
    assert not occupancy(join([]), steps, bins).any()


def test_occupancy_of_a_grids_bursts_is_that_of_the_grid() -> None:
    values = (rng().random((40, 72)) < 0.1).astype(np.complex64)
    values[10:20, 30:60] = 1
    grid = ResourceGrid("other", values, -36, 15e3, 128, np.full(40, 9))
    steps, bins = np.arange(0, 2.8e-3, 140e-6), np.arange(-6e5, 6e5, 60e3) - 7.5e3
    ours, theirs = occupancy(grid_bursts(grid), steps, bins), grid_occupancy(grid, steps, bins)
    assert np.mean(ours == theirs) > 0.98  # they differ in slivers alone


@pytest.mark.parametrize("busy", [0.2, 0.6])
def test_intervals_fill_their_share(busy: float) -> None:
    start, stop = random_intervals(20.0, rng(), (1e-3, 10e-3), busy)
    assert (start[1:] > stop[:-1]).all()
    lengths = stop - start
    assert 1e-3 <= lengths.min() < 1.2e-3 < 8e-3 < lengths.max() <= 10e-3
    assert lengths.sum() / 20 == pytest.approx(busy, rel=0.1)


def test_a_gate_is_cut_off_at_the_ends_and_ramps_inside() -> None:
    envelope = gate(
        100, 1.0, np.array([-30.0, -5.0, 20.0, 95.0, 130.0]), np.array([-10.0, 5.0, 40.0, 120.0, 150.0]), 4.0
    )
    on = np.flatnonzero(envelope)
    assert on.tolist() == [*range(5), *range(20, 40), *range(95, 100)]
    assert (np.diff(envelope[20:25]) > 0).all()
    assert (envelope[24:36] == 1).all()


def test_quick_rate_is_just_above_what_was_asked_for() -> None:
    for least in (123456.7, 9.99e6):
        rate = quick_rate(DURATION, least)
        assert least <= rate < 1.06 * least
        n = round(DURATION * rate)
        for prime in (2, 3, 5, 7, 11):
            while n % prime == 0:
                n //= prime
        assert n == 1


def test_pulses_are_those_of_their_formulae() -> None:
    at = np.linspace(-1.75, 1.75, 8)  # of BT 0.3, from the definition of TS 45.004 clause 2.4
    fine = (np.arange(-40000, 40000) + 0.5) / 1e4
    sigma = np.sqrt(np.log(2)) / (2 * np.pi * 0.3)
    gauss = np.exp(-(fine**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    smooth = np.convolve(gauss, np.ones(10000) / 1e4, "same") / 1e4
    expected = np.interp(at, fine, smooth) * 1e4 / 2
    np.testing.assert_allclose(gaussian_pulse(0.3, 2), expected / expected.sum(), atol=2e-4)
    pulse = root_raised_cosine(0.25, 8, 32).astype(np.float64)
    nyquist = np.convolve(pulse, pulse) / 8
    middle = len(nyquist) // 2
    assert nyquist[middle] == pytest.approx(1, abs=1e-3)
    assert np.abs(nyquist[middle + 8 :: 8]).max() < 3e-3
    # Symbols come out where they went in.
    symbols = np.array([1, -1, 1j, 1, -1j] * 20, np.complex64)
    both = shape(shape(symbols, pulse.astype(np.float32), 8)[::1], pulse.astype(np.float32), 1)[4:] / 8
    assert len(shape(symbols, pulse.astype(np.float32), 8)) == 800
    np.testing.assert_allclose(both[400 - 4 : 700 : 8][: len(symbols[50:80])], symbols[50:80], atol=0.02)


def test_phase_turns_by_half_the_index_a_symbol() -> None:
    turns = turns_of(np.ones(20), 0.5, 0.3, 4)
    np.testing.assert_allclose(np.diff(turns), 0.25 / 4, atol=1e-4)
    np.testing.assert_allclose(turns_of(np.array([1.0, -1.0, 1.0]), 1.0, np.inf, 2), [0, 0.25, 0.5, 0.25, 0, 0.25, 0.5])
    many = np.linspace(0, 1e5, 40_000)
    np.testing.assert_allclose(phasors(many), np.exp(2j * np.pi * many), atol=1e-5)


# --- Each like what it stands for ---


def test_gsm_has_slots_guard_periods_and_frequency_correction_bursts() -> None:
    signal = keyed.gsm(0.1, rng(1), broadcast=False, busy=0.3)
    slots = np.diff(signal.bursts.start) * keyed.GSM_SYMBOL_RATE / 156.25
    np.testing.assert_allclose(slots, np.round(slots), atol=1e-6)
    np.testing.assert_allclose(signal.bursts.stop - signal.bursts.start, 542.8e-6, atol=1e-6)
    on = np.abs(signal.samples) > 0.1
    assert on.mean() == pytest.approx(len(signal.bursts) * 555e-6 / 0.1, rel=0.03)
    bcch = keyed.gsm(0.1, rng(1), broadcast=True)
    np.testing.assert_allclose(np.abs(bcch.samples), 1, atol=1e-5)
    swing = np.angle(bcch.samples[1:] * bcch.samples[:-1].conj()) * bcch.sample_rate / (2 * np.pi)
    steady = np.convolve(np.abs(swing - keyed.GSM_SYMBOL_RATE / 4) < 500, np.ones(560), "valid") == 560
    begins = np.flatnonzero(np.diff(steady.astype(int)) > 0)
    # Bursts of 148 symbols at 67.7 kHz, ten frames of 4.615 ms apart, eleven once in 51.
    assert len(begins) in (2, 3)
    assert set(np.round(np.diff(begins) / bcch.sample_rate / 4.61538e-3).astype(int)) <= {10, 11}


def test_ieee802154_has_the_published_chips() -> None:
    chips = keyed.chip_sequences()
    assert "".join(map(str, chips[0])) == "11011001110000110101001000101110"
    assert "".join(map(str, chips[1])) == "11101101100111000011010100100010"
    assert "".join(map(str, chips[8])) == "10001100100101100000011101111011"
    assert "".join(map(str, chips[15])) == "11001001011000000111011110111000"
    packet = keyed.ieee802154_packet(np.arange(10), 4)
    np.testing.assert_allclose(np.abs(packet[8:-8]), 1, atol=0.05)  # half-sine O-QPSK has a constant envelope
    assert len(packet) / 8e6 == pytest.approx((4 + 1 + 1 + 10) * 32e-6, abs=1e-6)


def test_lora_sweeps_its_bandwidth_in_a_symbol() -> None:
    signal = swept.lora(0.1, rng(), spreading_factor=8, bandwidth=250e3, busy=0.99)
    on = np.abs(signal.samples) > 0
    assert on.mean() > 0.9
    swing = np.angle(signal.samples[1:] * signal.samples[:-1].conj()) * signal.sample_rate / (2 * np.pi)
    slope = np.diff(swing) * signal.sample_rate
    rate = 250e3 / (256 / 250e3)
    assert np.median(slope) == pytest.approx(rate, rel=0.01)
    assert 0.01 < np.mean(np.abs(slope + rate) < 0.02 * rate) < 0.15  # two and a quarter of 36 symbols go down
    assert np.abs(swing[on[1:] & on[:-1]]).max() < 1.01 * 125e3


@pytest.mark.parametrize(("duty", "triangular"), [(1.0, True), (0.2, False)])
def test_sweeps_have_their_width_and_rhythm(duty: float, triangular: bool) -> None:
    signal = swept.sweeps(0.02, rng(), width=4e6, sweep=1e-3, duty=duty, triangular=triangular)
    on = np.abs(signal.samples) > 0
    assert on.mean() == pytest.approx(duty, abs=0.05)
    swing = np.angle(signal.samples[1:] * signal.samples[:-1].conj())[on[1:] & on[:-1]] * signal.sample_rate / 6.2832
    assert np.ptp(np.quantile(swing, [0.001, 0.999])) == pytest.approx(4e6, rel=0.02)
    signs = np.sign(np.diff(swing))
    assert abs(np.mean(signs)) < 0.2 if triangular else abs(np.mean(signs)) > 0.9


def test_radar_pulses_are_compressed_by_their_code() -> None:
    signal = swept.radar_pulses(0.01, rng(), chip=1e-6, n_chips=13, interval=0.5e-3)
    assert len(signal.bursts) in (19, 20, 21)
    first = int(signal.bursts.start[3] * signal.sample_rate)
    code = np.repeat([1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1], 8)
    compressed = np.abs(np.convolve(signal.samples[first - 50 : first + 200], code[::-1], "valid"))
    assert compressed.max() > 5 * np.sort(compressed[np.abs(np.arange(len(compressed)) - compressed.argmax()) > 8])[-1]


def test_mode_s_has_its_preamble_and_one_pulse_a_bit() -> None:
    message = keyed.mode_s_message(112, rng(), 4)
    assert len(message) == 4 * 2 * (8 + 112)
    halves = message.reshape(-1, 4)[:, 1:3].mean(axis=1) > 0.6
    assert np.flatnonzero(halves[:16]).tolist() == [0, 2, 7, 9]
    assert (halves[16::2] != halves[17::2]).all()


def test_broadcast_fm_has_its_pilot_and_deviation() -> None:
    signal = analogue.broadcast_fm(0.2, rng(), loudness=0.4)
    swing = np.angle(signal.samples[1:] * signal.samples[:-1].conj()) * signal.sample_rate / (2 * np.pi)
    assert np.abs(swing).max() < 90e3
    frequency, density = scipy.signal.periodogram(swing, signal.sample_rate)
    assert (
        abs(
            frequency[(frequency > 16e3) & (frequency < 22e3)][
                density[(frequency > 16e3) & (frequency < 22e3)].argmax()
            ]
            - 19e3
        )
        < 10
    )


@pytest.mark.parametrize("system", analogue.TELEVISION)
def test_television_has_its_lines_its_carriers_and_its_vestige(system: str) -> None:
    standard = analogue.TELEVISION[system]
    signal = analogue.television_am(DURATION, rng(), system)
    frequency, density = scipy.signal.welch(signal.samples, signal.sample_rate, nperseg=2**14, return_onesided=False)
    above = frequency + 2.25e6  # from the vision carrier
    assert abs(above[density.argmax()]) < 2e3
    sound = np.abs(above - standard.sound) < 60e3
    assert density[sound].max() > 100 * np.median(density[np.abs(above - standard.sound - 0.3e6) < 50e3])
    assert density[above < -0.9e6].max() < 1e-5 * density.max()
    envelope = np.abs(signal.samples)
    lags = np.fft.irfft(np.abs(np.fft.rfft(envelope - envelope.mean())) ** 2)
    line = 500 + lags[500:800].argmax()
    assert signal.sample_rate / line == pytest.approx(standard.line_rate, rel=0.01)


def test_television_fm_has_constant_envelope() -> None:
    signal = analogue.television_fm(0.01, rng(), deviation=5e6)
    np.testing.assert_allclose(np.abs(signal.samples), 1, atol=1e-5)


@pytest.mark.parametrize("system", broadcast.BROADCASTS)
def test_broadcast_ofdm_repeats_its_guard_and_fills_its_carriers(system: str) -> None:
    standard = broadcast.BROADCASTS[system]
    signal = broadcast.broadcast_ofdm(DURATION, rng(), system)
    symbol = standard.n_fft
    products = signal.samples[symbol:] * signal.samples[:-symbol].conj()
    guard = round(standard.guards[0] * symbol)
    by_place = np.convolve(products, np.ones(guard), "valid")[: 3 * (symbol + guard)]
    assert np.abs(by_place).max() > 0.9 * guard
    occupied = standard.n_carriers * standard.sample_rate / symbol
    frequency, density = scipy.signal.welch(
        signal.samples, signal.sample_rate, nperseg=4096, return_onesided=False, detrend=False
    )
    inside = np.abs(frequency) < occupied / 2 - 20e3
    level = density[inside & (np.abs(frequency) > 20e3)].mean()
    assert density[np.abs(frequency) > occupied / 2 + 100e3].max() < 0.03 * level
    assert (density[0] < 0.5 * level) == (not standard.centre)


def test_dab_has_a_null_symbol_every_frame() -> None:
    signal = broadcast.broadcast_ofdm(0.3, rng(), "DAB")
    silent = np.abs(signal.samples) == 0
    edges = np.flatnonzero(np.diff(np.pad(silent, 1).astype(int))).reshape(-1, 2)
    edges = edges[np.diff(edges, axis=1)[:, 0] > 100]
    assert set(np.diff(edges, axis=1)[:, 0].tolist()) == {2656}
    np.testing.assert_allclose(np.diff(edges[:, 0]), 0.096 * 2.048e6)


@pytest.mark.parametrize(("chip_rate", "width"), [(3.84e6, 4.68e6), (1.2288e6, 1.5e6)])
def test_cdma_has_its_band(chip_rate: float, width: float) -> None:
    signal = keyed.cdma(0.01, rng(), chip_rate)
    frequency, density = scipy.signal.welch(signal.samples, signal.sample_rate, nperseg=512, return_onesided=False)
    assert density[np.abs(frequency) > width / 2 + 50e3].max() < 1e-3 * density.max()
    half = density[np.abs(np.abs(frequency) - chip_rate / 2) < 30e3].mean()
    assert half == pytest.approx(0.5 * density[np.abs(frequency) < chip_rate / 3].mean(), rel=0.25)


def test_am_has_its_carrier_and_fm_its_deviation() -> None:
    spectrum = np.abs(np.fft.fft(analogue.amplitude_modulated(0.1, rng()).samples))
    assert spectrum.argmax() == 0
    samples = analogue.narrow_fm(0.2, rng(), deviation=4e3).samples
    swing = np.angle(samples[1:] * samples[:-1].conj()) * 100e3 / (2 * np.pi)
    assert 3e3 < np.abs(swing).max() < 4.05e3


def test_nb_iot_sends_its_sync_in_its_subframes() -> None:
    with pytest.raises(ValueError, match="cell_id is 126"):
        broadcast.nb_iot(0.01, rng(), 126)
    signal = broadcast.nb_iot(0.1, rng(), cell_id=7, load=0.0)
    primary = over_the_air(broadcast.narrowband_primary_sync())
    peaks = coherence(signal.samples, primary)
    found = scipy.signal.find_peaks(peaks, 0.9, distance=100)[0]
    assert set(np.diff(found).tolist()) == {19200}
    assert len(found) in (9, 10)


# --- Real ones ---


def over_the_air(values: NDArray[np.complex64]) -> NDArray[np.complex128]:
    """Symbols 3 to 13 of an NB-IoT subframe, (11, up to 12), at 1.92 MS/s."""
    subframe = np.zeros((14, 12), np.complex64)
    subframe[3:, : values.shape[1]] = values
    grid = broadcast.narrowband_grid(subframe)
    samples = modulate(grid) * np.exp(1j * np.pi * np.arange(1920) / 128)
    return samples[grid.symbol_start[3] :]


def coherence(iq: NDArray, reference: NDArray) -> NDArray[np.float64]:
    """Correlation with a reference at every place, 1 for a copy of it."""
    peaks = np.abs(scipy.signal.fftconvolve(iq, np.conj(reference[::-1]), "valid"))
    norms = np.sqrt(np.maximum(np.convolve(np.abs(iq) ** 2, np.ones(len(reference)), "valid"), 1e-12))
    return peaks / (norms * np.linalg.norm(reference))


def test_a_real_nb_iot_cell_sends_our_sync_and_reference_signals(real_iq: Path) -> None:
    iq = np.fromfile(real_iq / "nbiot_amarisoft_192k.sigmf-data", np.complex64)
    first = 10012  # symbol 3 of a subframe 5
    reference = over_the_air(broadcast.narrowband_primary_sync())
    assert coherence(iq, reference).argmax() in (first, first + 19200)
    body = np.abs([np.vdot(r, x) for r, x in _symbols(reference, iq[first:])])
    norms = [np.linalg.norm(r) * np.linalg.norm(x) for r, x in _symbols(reference, iq[first:])]
    assert (body / norms > 0.99).all()
    later = first + 4 * 1920
    scores = {
        (cell, frame): coherence(
            iq[later : later + 1509], over_the_air(broadcast.narrowband_secondary_sync(cell, frame))
        )[0]
        for cell in (0, 1, 60)
        for frame in (0, 2, 4, 6)
    }
    assert max(scores, key=lambda key: scores[key]) == (0, 2)
    assert scores[0, 2] > 0.99
    # Reference signals of subframe 0 after it: cell 0's, in the last two symbols of both slots.
    columns, values = broadcast.narrowband_references(0)
    start = first + 5 * 1920 - 412
    bodies = start + np.cumsum([10 + 128, *[9 + 128] * 6] * 2) - 128
    for slot, index in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at = bodies[7 * slot + 5 + index]
        turned = iq[at : at + 128] * np.exp(-1j * np.pi * np.arange(128) / 128)
        heard = np.fft.fft(turned)[columns[index] - 6]
        sent = values[slot, index]
        assert np.abs(np.vdot(sent, heard)) > 0.99 * np.linalg.norm(sent) * np.linalg.norm(heard)


def _symbols(reference: NDArray, iq: NDArray) -> list[tuple[NDArray, NDArray]]:
    """Symbols 3 to 13 of both, with prefixes."""
    edges = np.cumsum([0, *[137] * 4, 138, *[137] * 6])
    return [(reference[a:b], iq[a:b]) for a, b in pairwise(edges)]


def test_a_real_802_15_4_packet_begins_with_our_preamble(real_iq: Path) -> None:
    iq = np.fromfile(real_iq / "zigbee_84B.sigmf-data", np.complex64)
    ours = keyed.ieee802154_packet(np.zeros(0, np.int64), 5)[: 10 * 32 * 5]  # at 10 MS/s: preamble and SFD
    iq = iq * np.exp(-2j * np.pi * 8e3 / 10e6 * np.arange(len(iq)))
    assert coherence(iq, ours).max() > 0.95


def test_real_mode_s_messages_have_our_preamble(real_iq: Path) -> None:
    raw = np.fromfile(real_iq / "adsb_1090.sigmf-data", np.uint8).astype(np.float64) - 127.5
    magnitude = np.hypot(raw[0::2], raw[1::2])
    pattern = keyed.mode_s_message(56, rng(), 4)[:64].reshape(16, 4).mean(axis=1)
    frames = np.lib.stride_tricks.sliding_window_view(magnitude, 16)
    loud = frames.max(axis=1) > 40
    level = frames[loud] - frames[loud].mean(axis=1, keepdims=True)
    shape_ = pattern - pattern.mean()
    scores = level @ shape_ / (np.linalg.norm(level, axis=1) * np.linalg.norm(shape_))
    assert np.sum(scores > 0.9) >= 3
