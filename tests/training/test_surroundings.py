# SPDX-License-Identifier: Apache-2.0
"""Random scenes: various, seeded, within their settings, and of what belongs together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from rfvit_rt.spectrogram import SpectrogramSpec, spectrogram
from training.datasets import IGNORED, UNNAMED
from training.scenes import labelled_window, make_test_window, make_window
from training.signals import surroundings
from training.signals.bluetooth import Advertiser, Connection, Device, Inquiry, Piconet
from training.signals.scene import Scene
from training.signals.surroundings import LABELS, SceneSettings, random_scene

SPEC = SpectrogramSpec()
SMALL = SceneSettings(sample_rate=1.92e6)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Scenes are made with one thread a process; more fight over products of small matrices."""
    with threadpool_limits(1):
        yield


def scenes(settings: SceneSettings, count: int) -> list[Scene]:
    return [random_scene(settings, np.random.default_rng(seed)) for seed in range(count)]


def test_the_same_seed_gives_the_same_window_and_others_differ() -> None:
    for seed in range(4):
        one, again, other = (make_window(k, SMALL, SPEC) for k in (seed, seed, seed + 1))
        np.testing.assert_array_equal(one.picture, again.picture)
        np.testing.assert_array_equal(one.mask, again.mask)
        assert not np.array_equal(one.picture, other.picture)


def test_all_classes_are_met_and_some_scenes_are_empty() -> None:
    found = Counter(label for made in scenes(SMALL, 50) for label in {sent.label for sent in made.transmitters} or {""})
    assert set(found) == {"", *LABELS[1:]}
    assert 1 <= found[""] <= 15  # 12 % in the mean
    assert min(found.values()) >= 2


def test_windows_are_labelled_pictures_in_range() -> None:
    for seed in range(12):
        window = make_window(seed, SMALL, SPEC)
        assert window.picture.shape == window.mask.shape == (SPEC.n_steps, SPEC.n_bins)
        assert set(np.unique(window.mask)) <= {*range(len(LABELS)), UNNAMED, IGNORED}
        assert np.isfinite(window.picture).all()
        assert window.mask.any() <= np.isfinite(window.snr_db)


def test_noise_only_scenes_have_no_label_whatever_the_receiver() -> None:
    for made in scenes(replace(SMALL, noise_only=1.0), 8):
        assert not made.transmitters
        assert not made.mask(SPEC, LABELS).any()
        assert np.abs(made.samples.view(np.float32)).max() <= 1
        assert np.isfinite(spectrogram(made.samples, made.sample_rate, SPEC)).all()


def test_scenes_about_some_classes_have_the_others_beside_them_as_background() -> None:
    settings = replace(SMALL, labels=("background", "LTE", "NR"), beside=0.5)
    beside = 0
    for seed, made in enumerate(scenes(settings, 20)):
        labels = {sent.label for sent in made.transmitters}
        assert not labels or labels & {"LTE", "NR"}
        beside += "other" in labels
        window = labelled_window(made, seed, settings, SPEC)
        assert set(np.unique(window.mask)) <= {0, 1, 2, IGNORED}
    assert beside >= 3


@pytest.mark.parametrize("label", ["WLAN", "Bluetooth", "other"])
def test_scenes_can_be_about_one_class(label: str) -> None:
    met = [
        label in {sent.label for sent in made.transmitters}
        for made in scenes(replace(SMALL, labels=("background", label), noise_only=0.0), 12)
    ]
    assert np.mean(met) > 0.3


def test_the_strongest_and_the_weakest_stay_in_range() -> None:
    settings = replace(SMALL, snr_db=(3.0, 20.0), noise_only=0.0)
    levels = [sent.snr_db for made in scenes(settings, 15) for sent in made.transmitters]
    assert min(levels) >= 3.0
    fixed = replace(SMALL, snr_db=(7.0, 7.0), noise_only=0.0)
    assert {sent.snr_db for made in scenes(fixed, 10) for sent in made.transmitters} == {7.0}


def test_test_windows_have_the_reported_snrs() -> None:
    from training.scenes import TEST_SNRS_DB

    found = [make_test_window(seed, SMALL, SPEC).snr_db for seed in range(10)]
    assert all(np.isnan(snr) or snr == TEST_SNRS_DB[i % 5] for i, snr in enumerate(found))
    assert not all(np.isnan(found))


def test_bands_wider_than_a_window_are_cut_into_tiles() -> None:
    settings = SceneSettings(sample_rate=122.88e6, noise_only=0.0, labels=("background", "LTE", "NR"), short=0.0)
    made = random_scene(settings, np.random.default_rng(1))
    image = spectrogram(made.samples, made.sample_rate, SPEC)
    whole = made.mask(SPEC, settings.labels)
    assert whole.shape == (256, 512)
    starts = SPEC.tile_starts(512)
    for seed, start in enumerate(starts):
        window = labelled_window(made, seed, settings, SPEC)
        np.testing.assert_array_equal(window.picture, image[:, start : start + 256].astype(np.float16))
        np.testing.assert_array_equal(window.mask, whole[:, start : start + 256])


def test_short_scenes_are_windows_that_end_early() -> None:
    settings = replace(SMALL, short=1.0)
    lengths = []
    for seed, made in enumerate(scenes(settings, 8)):
        steps = SPEC.steps_in(len(made.samples), made.sample_rate)
        lengths.append(steps)
        window = labelled_window(made, seed, settings, SPEC)
        assert (window.mask[steps:] == IGNORED).all()
        assert not window.picture[steps:].any()
        assert window.picture[:steps].any()
    assert 5 < min(lengths) < max(lengths) <= 256


def test_the_nearest_of_bluetooths_devices_has_the_scenes_level_and_none_is_below_the_least() -> None:
    links = (
        Piconet(Device(-20.0), Device(-5.0)),
        Advertiser(Device(-12.0), scanner=Device(-30.0)),
        Connection(Device(-8.0), Device(-9.0)),
        Inquiry(Device(-25.0)),
    )
    piconet, advertiser, connection, inquiry = surroundings._levelled(links, -10.0)
    assert isinstance(piconet, Piconet)
    assert isinstance(advertiser, Advertiser)
    assert isinstance(connection, Connection)
    assert isinstance(inquiry, Inquiry)
    assert (piconet.central.power_db, piconet.peripheral.power_db) == (-10.0, 0.0)
    assert advertiser.device.power_db == -7.0
    assert advertiser.scanner is not None
    assert advertiser.scanner.power_db == -10.0
    assert (connection.central.power_db, connection.peripheral.power_db) == (-3.0, -4.0)
    assert inquiry.device.power_db == -10.0


def test_bluetooth_is_heard_in_the_part_of_its_band_that_the_receiver_sees() -> None:
    band = surroundings._Band(SceneSettings(), 20e6, 20.0)
    for centre in (2402e6, 2441e6, 2475e6):
        emitter = surroundings._bluetooth(band, centre, np.random.default_rng(2))
        low = emitter.offset + emitter.signal.bursts.low.min() + centre
        high = emitter.offset + emitter.signal.bursts.high.max() + centre
        assert 2400e6 < low < high < 2483.5e6
        assert max(abs(low - centre), abs(high - centre)) < 12e6
    wide = surroundings._bluetooth(replace(band, sample_rate=100e6), 2420e6, np.random.default_rng(2))
    assert wide.offset == 21e6
    assert wide.signal.sample_rate == pytest.approx(84e6, rel=0.02)
