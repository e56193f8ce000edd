# SPDX-License-Identifier: Apache-2.0
"""Bluetooth: slots, channels and packet lengths of the specification, modulation as real devices send it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.signals import bluetooth
from training.signals.bluetooth import (
    BAND_CENTRE,
    CLASSIC_PACKETS,
    PHYS,
    Advertiser,
    Connection,
    Device,
    Inquiry,
    Packet,
    Piconet,
    hop_sequence,
    le_frequency,
    le_packet_length,
    random_links,
)
from training.signals.bursts import occupancy
from training.signals.modulation import phasors, root_raised_cosine, turns_of


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def one_packet(phy: str, index: float, length: float = 2e-3, rate: float = 20e6, seed: int = 0) -> NDArray:
    samples = np.zeros(round(length * rate), np.complex64)
    packet = Packet(0.0, length, BAND_CENTRE, phy, Device(index=index))
    bluetooth._send(packet, samples, rate, BAND_CENTRE, rng(seed))
    return samples


def deviation(samples: NDArray[np.complex64], rate: float) -> NDArray[np.float64]:
    """Frequency between samples, in Hz."""
    return np.angle(samples[1:] * samples[:-1].conj()) * rate / (2 * np.pi)


# --- Modulation ---


@pytest.mark.parametrize(
    ("phy", "index"), [("BR", 0.28), ("BR", 0.35), ("LE1M", 0.5), ("LE2M", 0.5), ("EDR2", 0.32), ("EDR3", 0.32)]
)
def test_packets_have_the_band_of_their_phy(phy: str, index: float) -> None:
    total = np.zeros(40_000)
    for seed in range(8):
        samples = one_packet(phy, index, seed=seed)
        total += np.abs(np.fft.fftshift(np.fft.fft(samples))) ** 2
    share = np.cumsum(total) / total.sum()
    low, high = np.searchsorted(share, [0.005, 0.995]) * 500 - 10e6
    assert high - low == pytest.approx(PHYS[phy].bandwidth, rel=0.08)


@pytest.mark.parametrize(("phy", "index"), [("BR", 0.28), ("BR", 0.35), ("LE1M", 0.5), ("LE2M", 0.5)])
def test_gfsk_has_constant_envelope_and_its_peak_deviation(phy: str, index: float) -> None:
    samples = one_packet(phy, index)
    np.testing.assert_allclose(np.abs(samples[60:-60]), 1, atol=1e-5)
    swing = deviation(samples[60:-60], 20e6)
    peak = index * PHYS[phy].symbol_rate / 2
    # Runs of like bits reach the full deviation, and nothing goes beyond.
    assert np.quantile(swing, 0.99) == pytest.approx(peak, rel=0.02)
    assert np.abs(swing).max() < 1.01 * peak


def test_preamble_alternates() -> None:
    swing = deviation(one_packet("LE1M", 0.5), 20e6)
    signs = np.sign(swing[np.arange(8) * 20 + 10])
    assert (signs[1:] == -signs[:-1]).all()


@pytest.mark.parametrize(("phy", "states"), [("EDR2", 4), ("EDR3", 8)])
def test_edr_has_a_gfsk_header_a_guard_and_differential_phases(phy: str, states: int) -> None:
    samples = one_packet(phy, 0.32)
    np.testing.assert_allclose(np.abs(samples[60:2500]), 1, atol=1e-5)
    assert np.abs(samples[2522:2616]).max() < 0.3  # 5 µs without symbols
    matched = np.convolve(samples, root_raised_cosine(0.4, 20) / 20, "same")
    symbols = matched[round(20 * 131.5) : -400 : 20][4:]
    turns = np.angle(symbols[1:] / symbols[:-1]) / (2 * np.pi) * states
    if states == 4:
        turns -= 0.5
    assert np.abs(turns - np.round(turns)).max() < 0.1
    assert len(set(np.round(turns).astype(int) % states)) == states
    assert np.mean(np.abs(samples[2700:-100]) ** 2) == pytest.approx(1, rel=0.1)


# --- Who sends when ---


def test_br_edr_packets_sit_in_slots_and_take_turns() -> None:
    link = Piconet(forward="DH5", backward="2-DH1", load=0.7, backward_load=0.5, synchronous=True)
    found = list(link.packets(3.0, rng()))
    slots = np.array([packet.start for packet in found]) / 625e-6
    slots -= slots[0]
    np.testing.assert_allclose(slots, np.round(slots), atol=1e-6)
    for forward, backward in zip(found[::2], found[1::2], strict=True):
        assert round((forward.start - found[0].start) / 625e-6) % 2 == 0
        assert forward.sender is link.central
        assert backward.sender is link.peripheral
        assert round((backward.start - forward.start) / 625e-6) in (1, 5)
    stops = np.array([packet.start + packet.length for packet in found])
    assert (stops[:-1] < np.array([packet.start for packet in found])[1:]).all()
    channels = Counter(round((packet.frequency - 2402e6) / 1e6) for packet in found)
    assert set(channels) == set(range(79))


def test_packets_fit_their_slots_and_hop_within_the_map() -> None:
    for slots, (shortest, longest), phy in CLASSIC_PACKETS.values():
        assert 126e-6 <= shortest <= longest < slots * 625e-6 - 220e-6  # the synthesiser needs time to hop
        assert phy in PHYS
    link = Piconet(channels=tuple(range(40, 60)))
    channels = {packet.frequency for packet in link.packets(2.0, rng())}
    assert channels == {2402e6 + channel * 1e6 for channel in range(40, 60)}


def test_inquiry_sends_twice_in_every_other_slot() -> None:
    starts = np.array([packet.start for packet in Inquiry().packets(1.0, rng())])
    assert len(starts) == pytest.approx(1600, abs=4)
    np.testing.assert_allclose(np.diff(starts)[:20:2], 312.5e-6)
    np.testing.assert_allclose(np.diff(starts)[1:20:2], 937.5e-6)


def test_advertising_is_on_its_three_channels() -> None:
    link = Advertiser(interval=0.1, payload=31, scanner=Device(-10))
    found = list(link.packets(5.0, rng()))
    assert {packet.frequency for packet in found} == {2402e6, 2426e6, 2480e6}
    own = [packet for packet in found if packet.sender is link.device and packet.length == found[0].length]
    assert found[0].length == 8 * (1 + 4 + 2 + 6 + 31 + 3) * 1e-6 == 376e-6
    starts = np.array([packet.start for packet in own if packet.frequency == 2402e6])
    assert ((np.diff(starts) >= 0.1) & (np.diff(starts) <= 0.11)).all()
    requests = [packet for packet in found if packet.sender is link.scanner]
    assert {round(packet.length * 1e6) for packet in requests} == {176}
    for request in requests:
        before = max((packet for packet in found if packet.start < request.start), key=lambda packet: packet.start)
        assert request.start - before.start - before.length == pytest.approx(150e-6)


def test_le_channels_lie_where_the_table_puts_them() -> None:
    megahertz = [round(le_frequency(channel) / 1e6) for channel in range(40)]
    assert sorted(megahertz) == list(range(2402, 2481, 2))
    assert (megahertz[0], megahertz[10], megahertz[11], megahertz[36]) == (2404, 2424, 2428, 2478)
    assert megahertz[37:] == [2402, 2426, 2480]
    assert le_packet_length(251, "LE1M") == pytest.approx(2088e-6)
    assert le_packet_length(0, "LE2M") == pytest.approx(44e-6)


def test_hop_sequence_follows_the_specification() -> None:
    """Algorithm #1 by its formulae: unmapped by increments modulo 37, a remapping index into the used channels."""
    everywhere = range(37)
    assert hop_sequence(7, everywhere, 0, 8) == [7, 14, 21, 28, 35, 5, 12, 19]
    assert sorted(hop_sequence(7, everywhere, 3, 37)) == list(range(37))
    few = (9, 10, 21, 22, 23, 33, 34, 35, 36)
    assert hop_sequence(7, few, 0, 5) == [35, 33, 21, 10, 35]  # 7 → 7 of nine, 14 → 5, 28 → 1


def test_connection_events_keep_their_interval_and_do_not_overrun() -> None:
    link = Connection(interval=7.5e-3, exchanges=12, payload=251, phy="LE2M")
    found = list(link.packets(1.0, rng()))
    starts = np.array([packet.start for packet in found])
    gaps = starts[1:] - starts[:-1] - [packet.length for packet in found[:-1]]
    assert gaps.min() == pytest.approx(150e-6)
    frequencies = np.array([packet.frequency for packet in found])
    first = np.flatnonzero(np.diff(frequencies, prepend=0))
    ratio = np.diff(starts[first]) / 7.5e-3
    np.testing.assert_allclose(ratio, np.round(ratio), atol=1e-6)
    assert found[0].sender is link.central
    assert max(packet.length for packet in found) <= le_packet_length(251, "LE2M")


def test_impossible_links_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        Piconet(channels=tuple(range(19)))
    with pytest.raises(ValueError, match="no BR/EDR packet"):
        Piconet(forward="DH9")
    with pytest.raises(ValueError, match="at least 2 of 0 to 36"):
        Connection(channels=(37, 38))
    with pytest.raises(ValueError, match="hop 4"):
        Connection(hop=4)


# --- In a band ---


@pytest.mark.parametrize(("rate", "centre"), [(80e6, BAND_CENTRE), (20e6, 2412e6), (61.44e6, 2440e6), (2.4e6, 2426e6)])
def test_labels_lie_where_the_energy_is(rate: float, centre: float) -> None:
    links = (Piconet(Device(0, 20e3), Device(-3, -20e3), forward="2-DH3"), Advertiser(interval=0.02), Connection())
    signal = bluetooth.bluetooth(links, 0.03, rng(3), rate, centre)
    assert signal.label == "Bluetooth"
    assert len(signal.samples) == round(0.03 * rate)
    n_fft = round(rate / 100e3)
    frames = signal.samples[: len(signal.samples) // n_fft * n_fft].reshape(-1, n_fft)
    power = np.abs(np.fft.fftshift(np.fft.fft(frames * np.hanning(n_fft), axis=1), axes=1)) ** 2
    steps = np.arange(len(frames) + 1) * n_fft / rate
    bins = (np.arange(n_fft + 1) - n_fft / 2 - 0.5) * rate / n_fft
    mask = occupancy(signal.bursts, steps, bins)
    assert mask.any()
    assert power[mask].sum() > 0.97 * power.sum()
    filled = (power > 1e-3 * np.quantile(power[mask], 0.9))[mask]
    assert filled.mean() > 0.93


def test_a_band_sees_what_lies_whole_inside_it_alone() -> None:
    links = (Piconet(),)
    wide = bluetooth.bluetooth(links, 0.3, rng(1), 82e6)
    narrow = bluetooth.bluetooth(links, 0.3, rng(1), 20e6, 2412e6)
    assert len(narrow.bursts) < len(wide.bursts)
    assert (np.abs(narrow.bursts.high) < 10e6).all()
    assert np.array_equal(bluetooth.bluetooth(links, 0.01, rng(1), 2e6, 2300e6).samples, np.zeros(20_000, np.complex64))


def test_random_links_are_possible_and_the_same_for_the_same_seed() -> None:
    kinds = set()
    for seed in range(60):
        links = random_links(rng(seed))
        assert links == random_links(rng(seed))
        kinds |= {type(link) for link in links}
        signal = bluetooth.bluetooth(links, 0.005, rng(seed), 20e6)
        again = bluetooth.bluetooth(links, 0.005, rng(seed), 20e6)
        np.testing.assert_array_equal(signal.samples, again.samples)
    assert kinds == {Piconet, Inquiry, Advertiser, Connection}


# --- A real device ---


def test_a_real_le_packet_is_what_our_modulator_makes_of_its_bits(real_iq: Path) -> None:
    iq = np.fromfile(real_iq / "ble_124B.sigmf-data", np.complex64)
    loud = np.flatnonzero(np.abs(iq) > np.abs(iq).max() / 3)
    packet = iq[loud[0] : loud[-1] + 1]
    best = 0.0
    swing = deviation(packet, 10e6)
    swing -= (np.quantile(swing, 0.95) + np.quantile(swing, 0.05)) / 2
    for timing in range(10):
        bits = np.sign(swing[timing::10][:1000])
        for shift in range(-8, 3):
            ours = phasors(turns_of(bits, 0.5, 0.5, 10))
            theirs = packet[max(0, timing + shift) :][: len(ours)]
            ours = ours[max(0, -timing - shift) :][: len(theirs)]
            spectrum = np.fft.fft(theirs[: len(ours)] * ours.conj(), 4 * len(ours))
            score = np.abs(spectrum).max() / np.sqrt(len(ours)) / np.linalg.norm(theirs)
            best = max(best, float(score))
    assert best > 0.9
