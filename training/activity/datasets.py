# SPDX-License-Identifier: Apache-2.0
"""CSI recordings with labels: one reader for each data set, all giving the same kind of recording.

None of the sets is part of this project; a reader takes the folder or file that a user has.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from rfvit_rt.datatypes import CSIFrame
from rfvit_rt.errors import RecordingError

# Subcarriers that an Intel 5300 reports at 20 MHz (IEEE 802.11n-2009, table 7-25f, grouping of 2).
INTEL_SUBCARRIERS = (*range(-28, -1, 2), -1, *range(1, 28, 2), 28)
NEXMON_CSIHAR_RATE = 100.0  # frames/s; the set has no time stamps, so only relative times mean anything
NTU_FI_RATE = 125.0  # frames/s, of every fourth packet
UT_HAR_RATE = 125.0  # steps/s: windows of 2 s
UT_HAR_LABELS = ("lie down", "fall", "walk", "pickup", "run", "sit down", "stand up")
GEOTEC_RATE = 50.0  # frames/s; the set has no time stamps, its README says both every 20 ms and 100 Hz


@dataclass(frozen=True, eq=False)
class LabelledRecording:
    """Consecutive frames of one device with a label for each.

    Attributes
    ----------
    csi : (frame, antenna, subcarrier) complex64, or float32 where only amplitudes are known
    subcarriers : (subcarrier,) int16
    timestamps : (frame,) float64
        Seconds.
    labels : (frame,) int64
        Index into the set's label names; -1 where nothing was said.
    subject, room, session : str
        Who, where and when; empty where the set does not tell.
    device : str
    rssi : (frame, antenna) float32 or None
        In dBm.
    held_out : bool
        Whether the set's own split puts it on the test side.
    """

    csi: NDArray[Any]
    subcarriers: NDArray[np.int16]
    timestamps: NDArray[np.float64]
    labels: NDArray[np.int64]
    subject: str = ""
    room: str = ""
    session: str = ""
    device: str = ""
    rssi: NDArray[np.float32] | None = None
    held_out: bool = False

    def frames(self) -> Iterator[CSIFrame]:
        """Replay the recording frame by frame."""
        csi = self.csi.astype(np.complex64)
        for index, timestamp in enumerate(self.timestamps.tolist()):
            rssi = None if self.rssi is None else self.rssi[index]
            yield CSIFrame(csi[index], self.subcarriers, timestamp, index, self.device, rssi)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A set's name, its label names, and its recordings."""

    name: str
    labels: tuple[str, ...]
    recordings: list[LabelledRecording]


def intel5300_rooms(path: Path) -> DataSet:
    """Read 2,100 clips of 10 s: Intel 5300, 3 antennas, 11 activities, 5 people, 2 rooms."""
    arrays = _arrays(path, "intel5300_har_2100x200x3x30_int8.npz")
    csi = arrays["csi"].astype(np.float32)
    complex_csi = (csi[..., 0] + 1j * csi[..., 1]).astype(np.complex64)
    # The card's RSSI counts from -44 dBm less the gain (Halperin et al., get_total_rss).
    rssi = arrays["rssi"].astype(np.float32) - 44 - arrays["agc"].astype(np.float32)[..., None]
    recordings = [
        LabelledRecording(
            csi=complex_csi[clip],
            subcarriers=np.array(INTEL_SUBCARRIERS, np.int16),
            timestamps=arrays["t"][clip].astype(np.float64),
            labels=np.full(csi.shape[1], arrays["y"][clip], np.int64),
            subject=str(arrays["subjects"][arrays["subject"][clip]]),
            room=str(arrays["rooms"][arrays["room"][clip]]),
            device="intel 5300 20 MHz",
            rssi=rssi[clip],
            held_out=bool(arrays["within_test"][clip]),
        )
        for clip in range(len(csi))
    ]
    return DataSet("intel5300_rooms", _names(arrays["labels"]), recordings)


def nexmon_csihar(path: Path) -> DataSet:
    """Read 420 clips of amplitudes: Raspberry Pi, 52 subcarriers, 7 activities, 3 people."""
    arrays = _arrays(path, "csihar_420_ragged_x52_f16.npz")
    recordings = []
    for clip, (start, end) in enumerate(zip(arrays["offset"][:-1], arrays["offset"][1:], strict=True)):
        recordings.append(
            LabelledRecording(
                csi=arrays["amp"][start:end, None].astype(np.float32),
                subcarriers=_without_zero(26),
                timestamps=np.arange(end - start) / NEXMON_CSIHAR_RATE,
                labels=np.full(end - start, arrays["y"][clip], np.int64),
                subject=f"p{arrays['subject'][clip]}",
                device="nexmon 20 MHz",
                held_out=bool(arrays["is_test"][clip]),
            )
        )
    return DataSet("nexmon_csihar", _names(arrays["labels"]), recordings)


def nexmon_fition(path: Path) -> DataSet:
    """Read 773 clips of 10 s: Raspberry Pi 3B+, 52 subcarriers, 6 activities, 2 rooms with two people each."""
    arrays = _arrays(path, "nexmon43455c0_har_773x500x56_int8.npz")
    # The outer four of 56 hold no channel in some of the packets.
    inner = np.abs(arrays["subcarrier"].astype(int) + 96) <= 26
    recordings = []
    for clip, count in enumerate(arrays["n"].tolist()):
        parts = arrays["csi"][clip, :count][:, inner].astype(np.float32)
        csi = (parts[..., 0] + 1j * parts[..., 1]) * arrays["scale"][clip, :count, None]
        recordings.append(
            LabelledRecording(
                csi=csi[:, None].astype(np.complex64),
                subcarriers=arrays["subcarrier"][inner].astype(np.int16),
                timestamps=arrays["t"][clip, :count].astype(np.float64),
                labels=np.full(count, arrays["y"][clip], np.int64),
                subject=f"u{arrays['subject'][clip]}",
                room=str(arrays["room"][clip]),
                device="nexmon bcm43455c0 80 MHz",
            )
        )
    return DataSet("nexmon_fition", _names(arrays["labels"]), recordings)


def esp32_geotec(path: Path) -> DataSet:
    """Read 32 runs of amplitudes with a label for every packet: ESP32-S2, 56 subcarriers, 10 classes, 1 person."""
    arrays = _arrays(path, "esp32s2_stream_32runs_x56_f16.npz")
    recordings = []
    for run, (start, end) in enumerate(zip(arrays["offset"][:-1], arrays["offset"][1:], strict=True)):
        recordings.append(
            LabelledRecording(
                csi=arrays["amp"][start:end, None].astype(np.float32),
                subcarriers=_without_zero(28),
                timestamps=np.arange(end - start) / GEOTEC_RATE,
                labels=arrays["y"][start:end].astype(np.int64),
                subject="p1",
                session=str(arrays["session"][run]),
                device="esp32 20 MHz",
                held_out=str(arrays["session"][run]) != "D1",
            )
        )
    return DataSet("esp32_geotec", _names(arrays["labels"]), recordings)


def ntu_fi_har(path: Path) -> DataSet:
    """Read NTU-Fi HAR as SenseFi publishes it: ``train_amp/LABEL/*.mat`` and ``test_amp/LABEL/*.mat``.

    Atheros, 3 antennas of 114 subcarriers, 500 packets/s, clips of 4 s; every fourth packet is read, as SenseFi does.
    """
    files = sorted(path.glob("train_amp/*/*.mat")) + sorted(path.glob("test_amp/*/*.mat"))
    names = tuple(sorted({file.parent.name for file in files}))
    if not files:
        raise RecordingError(f"{path} holds no train_amp/LABEL/*.mat; give SenseFi's folder NTU-Fi_HAR")
    recordings = []
    for file in files:
        try:
            amplitudes = np.asarray(scipy.io.loadmat(file)["CSIamp"], np.float32)[
                :, ::4
            ]  # (antenna * subcarrier, time)
            amplitudes = amplitudes.reshape(3, 114, -1).transpose(2, 0, 1)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise RecordingError(f"{file} holds no CSIamp of 342 rows ({error}); fetch the set again") from error
        recordings.append(
            LabelledRecording(
                csi=amplitudes,
                subcarriers=_without_zero(57),
                timestamps=np.arange(len(amplitudes)) / NTU_FI_RATE,
                labels=np.full(len(amplitudes), names.index(file.parent.name), np.int64),
                device="atheros 40 MHz",
                held_out=file.parent.parent.name == "test_amp",
            )
        )
    return DataSet("ntu_fi_har", names, recordings)


def ut_har(path: Path) -> DataSet:
    """Read UT-HAR as SenseFi publishes it: ``data/X_*.csv`` and ``label/y_*.csv``, which are NumPy files by content.

    Intel 5300, 3 antennas of 30 subcarriers, windows of 250 steps.
    """
    recordings = []
    for part in ("train", "val", "test"):
        try:
            amplitudes = np.load(path / "data" / f"X_{part}.csv", allow_pickle=False)
            amplitudes = amplitudes.reshape(len(amplitudes), 250, 3, 30).astype(np.float32)
            labels = np.load(path / "label" / f"y_{part}.csv", allow_pickle=False).astype(np.int64)
        except (OSError, ValueError) as error:
            raise RecordingError(f"{path} is not SenseFi's folder UT_HAR ({error}); fetch the set again") from error
        if len(labels) != len(amplitudes) or not np.isin(labels, range(len(UT_HAR_LABELS))).all():
            raise RecordingError(f"{path}: y_{part}.csv does not fit X_{part}.csv; fetch the set again")
        for clip, label in zip(amplitudes, labels.tolist(), strict=True):
            recordings.append(
                LabelledRecording(
                    csi=clip,
                    subcarriers=np.array(INTEL_SUBCARRIERS, np.int16),
                    timestamps=np.arange(250) / UT_HAR_RATE,
                    labels=np.full(250, label, np.int64),
                    session=part,
                    device="intel 5300 20 MHz",
                    held_out=part == "test",
                )
            )
    return DataSet("ut_har", UT_HAR_LABELS, recordings)


READERS = {
    reader.__name__: reader
    for reader in (intel5300_rooms, nexmon_csihar, nexmon_fition, esp32_geotec, ntu_fi_har, ut_har)
}


def _arrays(path: Path, name: str) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file, or of the one with that name in a folder."""
    file = path / name if path.is_dir() else path
    try:
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RecordingError(f"cannot read {file} ({error}); give the folder that holds {name}") from error


def _names(array: NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(name) for name in array)


def _without_zero(reach: int) -> NDArray[np.int16]:
    indices = np.arange(-reach, reach + 1, dtype=np.int16)
    return indices[indices != 0]
