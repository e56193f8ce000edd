# SPDX-License-Identifier: Apache-2.0
"""WLAN: fields against the standard's own words and what real stations send, traffic in order, labels on the energy."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from training.signals import wlan
from training.signals.bursts import occupancy
from training.signals.wlan import (
    MCS,
    PPDU,
    RATES,
    Station,
    WLANConfig,
    convolutional_code,
    crc8,
    ht_signal_bits,
    interleave_bpsk,
    legacy_subcarriers,
    long_training,
    long_training_ht,
    ppdu_samples,
    random_wlan_config,
    short_training,
    signal_bits,
    subcarriers,
    traffic,
    vht_signal_bits,
)

LEGACY_DATA = np.setdiff1d(legacy_subcarriers(), [-21, -7, 7, 21])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def bits_of(text: str) -> list[int]:
    return [int(bit) for bit in text.replace(" ", "")]


# --- Fields ---


def test_short_training_repeats_every_800_ns_and_its_field_is_flat_in_power() -> None:
    field = ppdu_samples(PPDU(), rng())[:160]
    np.testing.assert_allclose(field[16:], field[:-16], atol=1e-5)
    assert np.mean(np.abs(field) ** 2) == pytest.approx(1, rel=1e-3)
    # The first four samples of annex I.1.3, of a field whose mean power is 52 / 64**2.
    published = np.array([0.046 + 0.046j, -0.132 + 0.002j, -0.013 - 0.079j, 0.143 - 0.013j])
    np.testing.assert_allclose(field[:4] * np.sqrt(52) / 64, published, atol=1e-3)


def test_long_training_is_the_published_sequence() -> None:
    field = ppdu_samples(PPDU(), rng())[160:320]
    np.testing.assert_allclose(field[:32], field[64:96], atol=1e-5)  # its prefix
    np.testing.assert_allclose(field[32:96], field[96:], atol=1e-5)
    # Annex I.1.4: the body's first samples, of 52 / 64**2 mean power.
    published = np.array([0.156, -0.005 - 0.120j, 0.040 - 0.111j, 0.097 + 0.083j])
    np.testing.assert_allclose(field[32:36] * np.sqrt(52) / 64, published, atol=1e-3)
    peak = np.abs(np.correlate(ppdu_samples(PPDU(), rng()), field[32:96], "valid"))
    assert np.flatnonzero(peak > 0.95 * peak.max()).tolist() == [192, 256]


@pytest.mark.parametrize(("bandwidth", "edge", "nulls"), [(20e6, 28, 1), (40e6, 58, 3), (80e6, 122, 3)])
def test_training_of_ht_and_vht_fills_the_data_subcarriers(bandwidth: float, edge: int, nulls: int) -> None:
    values = long_training_ht(bandwidth)
    n_fft = len(values)
    used = np.sort((np.flatnonzero(values) + n_fft // 2) % n_fft - n_fft // 2)
    assert used.tolist() == [k for k in range(-edge, edge + 1) if abs(k) > nulls // 2]
    assert used.tolist() == subcarriers(bandwidth).tolist()
    np.testing.assert_allclose(np.abs(values[used]), 1)


@pytest.mark.parametrize("bandwidth", [40e6, 80e6])
def test_legacy_fields_are_the_same_in_every_20_mhz_but_for_a_rotation(bandwidth: float) -> None:
    for wide, narrow in ((short_training(bandwidth), short_training()), (long_training(bandwidth), long_training())):
        parts = np.fft.fftshift(wide).reshape(-1, 64)
        ratios = parts @ np.fft.fftshift(narrow).conj() / np.linalg.norm(narrow) ** 2
        np.testing.assert_allclose(ratios, {40e6: [1, 1j], 80e6: [1, -1, -1, -1]}[bandwidth], atol=1e-6)


def test_signal_field_is_that_of_the_standards_example() -> None:
    # Annex I.1.5: 36 Mb/s, 100 bytes; tables I-7 to I-9.
    bits = signal_bits(36, 100)
    assert bits == bits_of("1011 0001 0011 0000 0000 0000")
    coded = convolutional_code(bits)
    assert coded.tolist() == bits_of("110100011010000100000010001111100111000000000000")
    assert interleave_bpsk(coded).tolist() == bits_of("100101001101000000010100100000110010010010010100")


@pytest.mark.parametrize("columns", [13, 18, 26])
def test_interleaver_follows_the_formula(columns: int) -> None:
    rows = {13: 4, 18: 6, 26: 9}[columns]
    given = rng().integers(0, 2, columns * rows).astype(np.uint8)
    result = interleave_bpsk(given, columns)
    for k in range(len(given)):
        assert result[rows * (k % columns) + k // columns] == given[k]


def test_crc_is_the_remainder_of_the_polynomials_division() -> None:
    for bits in rng().integers(0, 2, (20, 34)).tolist():
        # 19.3.9.4.4: M(D) + I(D), with ones in I's eight highest terms, times D^8, modulo D^8 + D^2 + D + 1.
        rest = [bit ^ (place < 8) for place, bit in enumerate(bits)] + [0] * 8
        for place in range(34):
            if rest[place]:
                for tap in (0, 6, 7, 8):
                    rest[place + tap] ^= 1
        assert crc8(bits) == [1 - bit for bit in rest[34:]]


def spectrum_of(packet: NDArray[np.complex64], start: int, n_fft: int = 64) -> NDArray[np.complex64]:
    return np.fft.fft(packet[start : start + n_fft]) / n_fft


def test_pilots_turn_with_the_polarity_sequence() -> None:
    packet = ppdu_samples(PPDU(psdu_bytes=200, rate=6), rng())
    signs = []
    for symbol in range(20):  # SIGNAL, then data
        values = spectrum_of(packet, 336 + 80 * symbol)[[-21, -7, 7, 21]]
        np.testing.assert_allclose(np.sign(values.real) * [1, 1, 1, -1], np.sign(values.real[0]))
        signs.append(int(np.sign(values.real[0])))
    assert signs == [1, 1, 1, 1, -1, -1, -1, 1, -1, -1, -1, -1, 1, 1, -1, 1, -1, -1, 1, 1]  # 17.3.5.10


@pytest.mark.parametrize("rate", RATES)
def test_rates_have_their_constellations_and_lengths(rate: int) -> None:
    ppdu = PPDU(psdu_bytes=1500, rate=rate)
    packet = ppdu_samples(ppdu, rng())
    assert ppdu.n_symbols == int(np.ceil((16 + 8 * 1500 + 6) / (4 * rate)))
    assert len(packet) == round(ppdu.duration * 20e6) == 400 + 80 * ppdu.n_symbols
    points = [spectrum_of(packet, 416 + 80 * symbol)[LEGACY_DATA] for symbol in range(ppdu.n_symbols)]
    values = np.round(np.ravel(points) * np.sqrt(52 * 42), 1)
    assert len(np.unique(values)) == 2 ** RATES[rate][0]
    assert np.mean(np.abs(packet) ** 2) == pytest.approx(1, rel=0.05)


def decoded_signal(values: NDArray[np.complexfloating], turned: bool) -> NDArray[np.uint8]:
    """Bits of a SIGNAL symbol without errors: interleaver and code undone, 24 from 48."""
    received = ((values / 1j if turned else values).real > 0).astype(np.uint8)
    return received.reshape(16, 3).T.ravel()


def uncoded(coded: NDArray[np.uint8]) -> list[int]:
    """What was coded, from the first generator alone (1 + D^2 + D^3 + D^5 + D^6), checked with the second."""
    bits: list[int] = []
    for bit in coded[0::2].tolist():
        bits.append((bit + sum(bits[-delay] for delay in (2, 3, 5, 6) if delay <= len(bits))) % 2)
    np.testing.assert_array_equal(convolutional_code(bits), coded)
    return bits


@pytest.mark.parametrize(
    "ppdu",
    [
        PPDU("HT", 20e6, 700, mcs=3),
        PPDU("HT", 40e6, 9000, mcs=7, n_streams=2, short_guard=True),
        PPDU("VHT", 20e6, 700, mcs=8),
        PPDU("VHT", 80e6, 20000, mcs=9, n_streams=3, short_guard=True),
    ],
    ids=str,
)
def test_signal_fields_can_be_read_from_the_air(ppdu: PPDU) -> None:
    packet = ppdu_samples(ppdu, rng())
    ratio = round(ppdu.bandwidth / 20e6)
    assert len(packet) == round(ppdu.duration * ppdu.bandwidth)
    shift = -32 * (ratio - 1)  # the lowest 20 MHz, which is not rotated
    symbols = [
        spectrum_of(packet, (336 + 80 * n) * ratio, 64 * ratio)[(LEGACY_DATA + shift) % (64 * ratio)] for n in range(3)
    ]
    legacy = uncoded(decoded_signal(symbols[0], False))
    assert legacy[:4] == bits_of("1101")  # 6 Mb/s
    length = sum(bit << place for place, bit in enumerate(legacy[5:17]))
    # Old stations keep quiet until the end: LENGTH at 3 bytes a symbol covers what follows (within a symbol).
    assert 0 <= np.ceil((8 * length + 22) / 24) * 4e-6 - (ppdu.duration - 20e-6) < 4e-6
    coded = np.concatenate([decoded_signal(symbols[1], ppdu.format == "HT"), decoded_signal(symbols[2], True)])
    bits = uncoded(coded)
    assert bits == (ht_signal_bits if ppdu.format == "HT" else vht_signal_bits)(ppdu)
    assert crc8(bits[:34]) == bits[34:42]


@pytest.mark.parametrize(("format_", "mcs", "rate"), [("HT", 7, 72.22e6), ("VHT", 8, 86.7e6), ("VHT", 0, 7.222e6)])
def test_data_rates_are_those_of_the_tables(format_: str, mcs: int, rate: float) -> None:
    ppdu = PPDU(format_, 20e6, 10, mcs=mcs, short_guard=True)
    assert ppdu.data_bits / wlan.SHORT_SYMBOL == pytest.approx(rate, rel=1e-3)
    wide = PPDU("VHT", 80e6, 10, mcs=9, n_streams=4, short_guard=True)
    assert wide.data_bits / wlan.SHORT_SYMBOL == pytest.approx(1733.3e6, rel=1e-3)
    assert len(MCS) == 10


def test_impossible_packets_are_refused() -> None:
    with pytest.raises(ValueError, match="no such packet"):
        PPDU("HT", 80e6)
    with pytest.raises(ValueError, match="no such packet"):
        PPDU("non-HT", rate=7)
    with pytest.raises(ValueError, match=r"more than 5\.484 ms"):
        PPDU("HT", psdu_bytes=60000)
    with pytest.raises(ValueError, match=r"WLANConfig\.load is 2"):
        WLANConfig(load=2)
    with pytest.raises(ValueError, match=r"WLANConfig\.bandwidth"):
        WLANConfig("HT", 80e6)


@pytest.mark.parametrize("rate", [1, 2, 11])
def test_802_11b_is_spread_by_the_barker_code_within_its_mask(rate: int) -> None:
    ppdu = PPDU("DSSS", psdu_bytes=300, rate=rate)
    packet = ppdu_samples(ppdu, rng())
    assert len(packet) == round(ppdu.duration * 20e6)
    assert np.mean(np.abs(packet) ** 2) == pytest.approx(1, rel=0.02)
    barker = np.array([1, -1, 1, 1, -1, 1, 1, 1, -1, -1, -1])
    at_20 = scipy.signal.resample(np.repeat(barker, 20), 20)
    peaks = np.abs(np.correlate(packet[: 192 * 20], at_20, "same"))
    by_place = peaks.reshape(192, 20).mean(axis=0)
    assert by_place.max() > 4 * np.median(by_place)  # one peak a symbol of a microsecond
    frequency, density = scipy.signal.welch(packet, 20e6, nperseg=256, return_onesided=False)
    assert density[np.abs(frequency) > 9.2e6].max() < 10**-3 * density.max()


def test_spectral_mask_inside_the_channel() -> None:
    """17.3.9.3: 0 dBr to 9 MHz; what of the skirt lies inside 20 MS/s is well down, and the centre is empty."""
    packets = [ppdu_samples(PPDU(psdu_bytes=2304, rate=54), rng(seed))[400:] for seed in range(30)]
    frequency, density = scipy.signal.welch(np.concatenate(packets), 20e6, nperseg=512, return_onesided=False)
    inside = (np.abs(frequency) < 8.1e6) & (np.abs(frequency) > 0.4e6)
    level = 10 * np.log10(density / density[inside].mean())
    assert np.abs(level[inside]).max() < 3
    assert level[np.abs(frequency) > 9e6].max() < -14
    assert level[np.abs(frequency) < 40e3].max() < -8


# --- Traffic ---


def test_packets_keep_their_distances_and_do_not_overlap() -> None:
    config = WLANConfig(load=1.0, protected=0.5, n_networks=0)
    sent = list(traffic(config, 0.2, rng()))
    gaps = np.array([after.start - before.start - before.ppdu.duration for before, after in pairwise(sent)])
    begins = gaps > 20e-6
    np.testing.assert_allclose(gaps[~begins], 16e-6, rtol=1e-6)  # SIFS within an exchange
    first = [after.ppdu.format == "HT" or after.ppdu.psdu_bytes == 20 for _, after in pairwise(sent)]
    assert np.array(first)[begins].all()
    slots = (gaps[begins] - 34e-6) / 9e-6  # DIFS, then a backoff of whole slots
    np.testing.assert_allclose(slots, np.round(slots), atol=1e-6)
    assert set(np.round(slots).astype(int)) == set(range(16))


def test_answers_come_from_the_other_end() -> None:
    answers = 0
    for sent, answer in pairwise(traffic(WLANConfig(load=1.0, n_networks=0), 0.1, rng(4))):
        if sent.ppdu.format == "HT" and answer.ppdu.format == "non-HT" and answer.ppdu.psdu_bytes in (14, 32):
            assert {sent.station, answer.station} == {0, 1}
            answers += 1
    assert answers > 20


def test_beacons_come_every_102_4_ms() -> None:
    idle = [sent.start for sent in traffic(WLANConfig(load=0.0, n_networks=1), 1.5, rng(1))]
    np.testing.assert_allclose(np.diff(idle), 102.4e-3, atol=0.3e-3)
    assert len(idle) in (14, 15)
    assert not list(traffic(WLANConfig(load=0.0, n_networks=0), 1.0, rng()))
    three = list(traffic(WLANConfig(load=0.0, n_networks=3), 0.4, rng()))
    assert len(three) % 3 == 0


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
def test_load_is_the_share_of_time(load: float) -> None:
    config = WLANConfig(load=load, n_networks=0, longest=5e-3)
    busy = sum(sent.ppdu.duration for sent in traffic(config, 4.0, rng()))
    assert busy / 4 == pytest.approx(load, rel=0.35)


# --- The channel ---


def energy(samples: NDArray[np.complex64], rate: float) -> tuple[NDArray, NDArray, NDArray]:
    """Spectra of half-overlapping windows, and the edges of their pixels."""
    n_fft = round(rate / 156.25e3)  # two bins a subcarrier
    frames = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[:: n_fft // 2]
    power = np.abs(np.fft.fftshift(np.fft.fft(frames * np.hanning(n_fft), axis=1), axes=1)) ** 2
    steps = (np.arange(len(frames) + 1) + 0.5) * (n_fft // 2) / rate
    return power, steps, (np.arange(n_fft + 1) - n_fft / 2 - 0.5) * rate / n_fft


@pytest.mark.parametrize(
    "config",
    [
        WLANConfig(load=0.5, n_networks=0),
        WLANConfig("non-HT", load=1.0),
        WLANConfig("HT", 40e6, 1, load=0.7, narrow=0.5, beacon_rate=1),
        WLANConfig("VHT", 80e6, 2, load=0.5, narrow=0.3),
        WLANConfig("DSSS", load=0.5, beacon_rate=1),
    ],
    ids=lambda config: f"{config.format}-{config.bandwidth / 1e6:g}",
)
def test_labels_lie_where_the_energy_is(config: WLANConfig) -> None:
    signal = wlan.wlan(config, 0.01, rng(5))
    assert signal.label == "WLAN"
    assert signal.sample_rate == config.bandwidth
    assert len(signal.samples) == round(0.01 * config.bandwidth)
    power, steps, bins = energy(signal.samples, signal.sample_rate)
    mask = occupancy(signal.bursts, steps, bins)
    assert 0.02 < mask.mean() < 0.95
    assert power[mask].sum() > 0.985 * power.sum()
    # And no label where there is none.
    level = power[mask].mean()
    assert (power > 0.003 * level)[mask].mean() > 0.9
    assert mask[power > 0.1 * level].mean() > 0.95


def test_short_training_and_the_centre_are_labelled_by_subcarrier() -> None:
    config = WLANConfig("non-HT", load=1.0, n_networks=0)
    signal = wlan.wlan(config, 0.02, rng())
    short = np.isclose(signal.bursts.stop - signal.bursts.start, 8e-6)
    centres = (signal.bursts.low + signal.bursts.high)[short] / 2 / 312.5e3
    assert sorted(set(np.round(centres).astype(int))) == [-24, -20, -16, -12, -8, -4, 4, 8, 12, 16, 20, 24]
    low, high = signal.bursts.low[~short] / 312.5e3, signal.bursts.high[~short] / 312.5e3
    assert set(zip(low.tolist(), high.tolist(), strict=True)) == {(-26.5, -0.5), (0.5, 26.5)}


def test_stations_have_their_power_and_offset() -> None:
    stations = (Station(0.0, 40e3), Station(-20.0, -25e3, 50e-9))
    config = WLANConfig("non-HT", stations=stations, load=1.0, uplink=0.5, n_networks=0)
    signal = wlan.wlan(config, 0.03, rng(2))
    levels: dict[int, list[float]] = {0: [], 1: []}
    for start in packets_in(signal.samples):
        field = signal.samples[start : start + 160]
        offset = np.angle(np.vdot(field[:-16], field[16:])) / (2 * np.pi * 0.8e-6)
        station = int(abs(offset - 40e3) > 1e3)
        assert offset == pytest.approx(stations[station].frequency_offset, abs=1e3)
        levels[station].append(10 * np.log10(np.mean(np.abs(field) ** 2)))
    assert len(levels[0]) > 5
    assert np.mean(levels[0]) == pytest.approx(0, abs=0.3)
    assert len(levels[1]) > 5
    assert -32 < np.mean(levels[1]) < -14  # of a Rayleigh channel
    assert np.ptp(levels[1]) < 0.3  # that stays as it is
    assert {float(edge) for edge in signal.bursts.high if edge > 8e6} == {26.5 * 312.5e3 + 40e3, 26.5 * 312.5e3 - 25e3}


def test_the_same_seed_gives_the_same_signal_whatever_the_config() -> None:
    for seed in range(12):
        config = random_wlan_config(rng(seed), 40e6)
        assert config == random_wlan_config(rng(seed), 40e6)
        one, again = (wlan.wlan(config, 0.005, rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one.samples, again.samples)
        np.testing.assert_array_equal(one.bursts.start, again.bursts.start)
        assert one.samples.dtype == np.complex64
        assert np.isfinite(one.samples.view(np.float32)).all()


# --- Real stations ---


def read(folder: Path, name: str) -> NDArray[np.complex128]:
    meta = json.loads((folder / f"{name}.sigmf-meta").read_text())
    assert meta["global"]["core:sample_rate"] == 20e6
    pairs = np.fromfile(folder / f"{name}.sigmf-data", np.int16).astype(np.float64).reshape(-1, 2)
    return pairs[:, 0] + 1j * pairs[:, 1]


def coherence(iq: NDArray, reference: NDArray) -> NDArray[np.float64]:
    """Correlation with a reference at every place, 1 for a copy of it."""
    peaks = np.abs(np.correlate(iq, reference, "valid"))
    norms = np.sqrt(np.convolve(np.abs(iq) ** 2, np.ones(len(reference)), "valid"))
    return peaks / (np.maximum(norms, 1e-9) * np.linalg.norm(reference))


def packets_in(iq: NDArray[np.complex128]) -> list[int]:
    """First samples of the packets that begin with our short training, found by our long training."""
    ours = ppdu_samples(PPDU(), rng())
    long, short = coherence(iq, ours[192:320]), coherence(iq, ours[:128])
    found = [i for i in np.flatnonzero(long > 0.7) if long[i] == long[max(0, i - 100) : i + 100].max() and i >= 192]
    assert all(short[i - 196 : i - 150].max() > 0.7 for i in found)
    return [int(i) - 192 for i in found]


def equalised(iq: NDArray[np.complex128], start: int, symbol: int) -> NDArray[np.complex128]:
    """Subcarriers of a symbol after the training fields, without frequency offset and channel."""
    turn = np.angle(np.vdot(iq[start + 192 : start + 256], iq[start + 256 : start + 320])) / 64
    packet = iq[start : start + 1000] * np.exp(-1j * turn * np.arange(len(iq[start : start + 1000])))
    channel = np.fft.fft(packet[192:256]) + np.fft.fft(packet[256:320])
    used = legacy_subcarriers()
    result = np.zeros(64, np.complex128)
    result[used] = np.fft.fft(packet[336 + 80 * symbol :][:64])[used] / channel[used] * long_training()[used]
    return result


@pytest.mark.parametrize(
    ("name", "n_packets", "signals"),
    [
        ("wifi_11n_ota_6p5mbps", 40, {(6, 141), (24, 32), (6, 124), (6, 84), (6, 32)}),
        ("wifi_11a_cond_24m", 15, {(24, 138), (24, 14), (24, 111)}),
    ],
)
def test_real_packets_begin_with_our_training_and_signal_fields(
    real_iq: Path, name: str, n_packets: int, signals: set[tuple[int, int]]
) -> None:
    iq = read(real_iq, name)
    starts = packets_in(iq)
    assert len(starts) >= n_packets
    found = set()
    for start in starts:
        bits = uncoded(decoded_signal(equalised(iq, start, 0)[LEGACY_DATA], False))
        rate = next(rate for rate in RATES if signal_bits(rate, 1)[:4] == bits[:4])
        length = sum(bit << place for place, bit in enumerate(bits[5:17]))
        assert bits == signal_bits(rate, length)
        found.add((rate, length))
    assert found >= signals


def test_real_ht_packets_have_our_ht_sig(real_iq: Path) -> None:
    iq = read(real_iq, "wifi_11n_ota_6p5mbps")
    found = 0
    for start in packets_in(iq):
        symbols = [equalised(iq, start, symbol)[LEGACY_DATA] for symbol in (0, 1, 2)]
        if np.mean(np.abs(symbols[1].imag)) < 2 * np.mean(np.abs(symbols[1].real)):
            continue  # an acknowledgement in 802.11a
        bits = uncoded(np.concatenate([decoded_signal(values, True) for values in symbols[1:]]))
        assert crc8(bits[:34]) == bits[34:42]
        assert bits[:8] == [0] * 8  # MCS 0, 20 MHz
        ours = PPDU("HT", 20e6, sum(bit << place for place, bit in enumerate(bits[8:24])))
        legacy = uncoded(decoded_signal(symbols[0], False))
        assert legacy[5:17] == [int(bit) for bit in f"{3 * (round((ours.duration - 20e-6) / 4e-6)) - 3:012b}"[::-1]]
        found += 1
    assert found >= 5
