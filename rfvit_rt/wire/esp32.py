# SPDX-License-Identifier: Apache-2.0
"""Lines of text that ESP32 firmware prints for each frame it receives: Espressif's esp-csi, and ESP32-CSI-Tool.

They differ in their columns, and all end with the channel estimate as a list of int8, imaginary before real:

- esp-csi, ESP32 to S3 and C3 (25 columns): ``CSI_DATA,id,mac,rssi,…,len,first_word,"[a,b,…]"``
- esp-csi, ESP32-C5 and C6 (15 columns): ``CSI_DATA,seq,mac,rssi,…,len,first_word,"[a,b,…]"``
- ESP32-CSI-Tool (26 columns): ``CSI_DATA,role,mac,rssi,…,len,[a b …]``

Columns after the list, such as a time that a logger added, are left out. Of the training fields in a list, LLTF has the
subcarriers of 802.11a/g, HT-LTF those of 802.11n. Which of them a list holds, and in what order of subcarriers, depends
on the kind of frame and on the channel: ESP-IDF Programming Guide, "Wi-Fi Channel State Information".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.errors import WireError

CLOCK_MODULUS = 1 << 32
SEQUENCE_MODULUS = 1 << 32

MAX_LINE = 8192
"""Longest line read, in bytes; firmware prints up to about 3,500."""

_LINE = re.compile(rb'CSI_DATA,([^\[\]"]*),[ ]*"?\[([-0-9, ]*)\]"?[ ]*(?:,[^\[\]]*)?')
_VALUES = re.compile(rb"[ ]*-?\d{1,3}(?:[ ,]+-?\d{1,3})*[ ,]*")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")
_INTEGER = re.compile(r"-?\d{1,10}")

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, eq=False)
class ESP32Packet:
    """What one line says.

    Attributes
    ----------
    csi : (subcarrier,) complex64
        Channel estimate of one training field, in the chip's units.
    subcarriers : (subcarrier,) int16
        Indices from the centre of the band that the training field covers, ascending; nulls are left out.
    field : {"LLTF", "HT-LTF", "HE-LTF"}
        Training field that was taken: the widest that the line holds, unless LLTF was asked for.
    bandwidth : int
        Bandwidth of the training field in MHz.
    family : str
        ``esp32``, or ``esp32-c5/c6`` for the chips that print 15 columns.
    mac : str
        Transmitter, as ``1a:00:00:00:00:00``.
    clock : int
        The chip's clock in µs, below 2**32.
    sequence : int or None
        Number that the firmware gave the frame, below 2**32; ESP32-CSI-Tool gives none.
    rssi, noise_floor : int
        In dBm.
    gain : float or None
        Receiver's gain in dB; None where the line does not say it.
    """

    csi: NDArray[np.complex64]
    subcarriers: NDArray[np.int16]
    field: str
    bandwidth: int
    family: str
    mac: str
    clock: int
    sequence: int | None
    rssi: int
    noise_floor: int
    gain: float | None


def decode_esp32(line: Buffer, legacy: bool = False, pilots: bool = True) -> ESP32Packet | None:
    """Return what one line says.

    Parameters
    ----------
    line : bytes-like
        One line, with or without its end.
    legacy : bool
        Take LLTF, which every frame has, even where there is more.
    pilots : bool
        Keep pilot subcarriers.

    Returns
    -------
    ESP32Packet or None
        None for lines that are no channel estimate: headers, the firmware's log, empty ones.

    Raises
    ------
    WireError
        If it is a channel estimate that cannot be read, such as two lines spliced. What the message says up to the
        first colon is one of a few reasons.
    """
    text = bytes(line).strip()
    start = text.find(b"CSI_DATA,")
    if start < 0 or text.startswith(b"type,"):
        return None
    if len(text) > MAX_LINE:
        raise WireError(f"line too long: {len(text)} bytes, expected at most {MAX_LINE}")
    if text.find(b"CSI_DATA", start + 1) >= 0:
        raise WireError("spliced line: CSI_DATA comes twice; is the serial port too slow for the frames?")
    match = _LINE.fullmatch(text, start)
    if match is None:
        raise WireError("spliced line: no whole list of values in it; is the serial port too slow for the frames?")
    columns, mac = _columns(match[1].decode("ascii", "replace").split(","))
    values = _values(match[2])
    _check_length(columns, len(values))
    classic = "sig_mode" in columns
    field = _classic_field(columns, len(values), legacy) if classic else _newer_field(values)
    subcarriers, places = _tones(field, pilots)
    csi = values.reshape(-1, 2)[places, ::-1].astype(np.float32, order="C").view(np.complex64)[:, 0]
    return ESP32Packet(
        csi=csi,
        subcarriers=subcarriers,
        field=field.name,
        bandwidth=field.bandwidth,
        family="esp32" if classic else "esp32-c5/c6",
        mac=mac,
        clock=columns["local_timestamp"] % CLOCK_MODULUS,
        sequence=columns["id"] % SEQUENCE_MODULUS if "id" in columns else None,
        rssi=columns["rssi"],
        noise_floor=columns["noise_floor"],
        gain=_gain(columns),
    )


# Columns between the first, CSI_DATA, and the last, the list of values.
_RADIO = (
    "rate sig_mode mcs bandwidth smoothing not_sounding aggregation stbc fec_coding sgi noise_floor ampdu_cnt channel "
    "secondary_channel local_timestamp ant sig_len rx_state"
)
_ESP_CSI = f"id mac rssi {_RADIO} len first_word".split()
_CSI_TOOL = f"role mac rssi {_RADIO} real_time_set real_timestamp len".split()
_GAINS = "rate noise_floor fft_gain agc_gain channel local_timestamp sig_len rx_state"
_ESP_CSI_C5_C6 = f"id mac rssi {_GAINS} len first_word".split()
_LAYOUTS = {len(names): names for names in (_ESP_CSI, _CSI_TOOL, _ESP_CSI_C5_C6)}
_NO_INTEGERS = ("role", "mac", "real_timestamp")


def _columns(texts: list[str]) -> tuple[dict[str, int], str]:
    """Values of the columns by their names, and the transmitter's address."""
    names = _LAYOUTS.get(len(texts))
    if names is None:
        raise WireError(f"unknown columns: {len(texts) + 2} came, known are 15, 25 and 26; two lines may be spliced")
    columns = {}
    for name, text in zip(names, texts, strict=True):
        if name not in _NO_INTEGERS:
            if not _INTEGER.fullmatch(text):
                raise WireError(f"unreadable column: {name} is {text[:20]!r}, expected an integer")
            columns[name] = int(text)
    for name in ("rssi", "noise_floor"):
        if not -128 <= columns[name] <= 127:
            raise WireError(f"impossible value: {name} is {columns[name]}, expected dBm from -128 to 127")
    if not _MAC.fullmatch(texts[1]):
        raise WireError(f"unreadable column: mac is {texts[1][:20]!r}, expected six octets in hexadecimal")
    return columns, texts[1].lower()


def _values(text: bytes) -> NDArray[np.int16]:
    if not _VALUES.fullmatch(text):
        raise WireError("spliced line: its list holds other things than numbers of at most three digits")
    values = np.fromstring(text.replace(b",", b" "), np.int16, sep=" ")
    if values.min() < -128 or values.max() > 127:
        raise WireError("impossible value: a number of the list is not in -128 to 127")
    return values


def _check_length(columns: dict[str, int], count: int) -> None:
    # ESP32-CSI-Tool prints 128 values even where it was told of more.
    if columns["len"] != count and not ("id" not in columns and count == 128 < columns["len"]):
        raise WireError(f"spliced line: len says {columns['len']} values, {count} came")
    if count % 2:
        raise WireError(f"unknown layout: {count} values, expected pairs")


def _gain(columns: dict[str, int]) -> float | None:
    """Gain in dB, as esp-csi's own compensation reckons it: the amplifier's plus a quarter of the FFT's."""
    if "agc_gain" not in columns:
        return None
    fft_gain = (columns["fft_gain"] + 128) % 256 - 128  # firmware prints the signed octet as unsigned
    return columns["agc_gain"] % 256 + fft_gain / 4


@dataclass(frozen=True)
class _Field:
    """One training field in a list: its first pair of values, and the subcarriers of its pairs in their order."""

    name: str
    bandwidth: int
    first: int
    order: tuple[int, ...]


def _upward(lowest: int, highest: int) -> tuple[int, ...]:
    return tuple(range(lowest, highest + 1))


def _from_zero(lowest: int, highest: int) -> tuple[int, ...]:
    return (*range(highest + 1), *range(lowest, 0))


def _classic_field(columns: dict[str, int], count: int, legacy: bool) -> _Field:
    """Field that a list of ESP32, S2, S3 or C3 holds: one of the table's rows, or less where the user disabled some."""
    secondary, stbc, wide = (columns[name] for name in ("secondary_channel", "stbc", "bandwidth"))
    high_throughput = columns["sig_mode"]
    if secondary not in _SECONDARY or stbc not in (0, 1, 2, 3) or wide not in (0, 1) or high_throughput not in (0, 1):
        raise WireError(
            f"unknown layout: sig_mode {high_throughput}, bandwidth {wide}, stbc {stbc}, secondary_channel {secondary}"
        )
    lltf = _from_zero(-32, 31) if secondary == _NONE else _upward(-32, 31)
    ht_ltf = _ht_ltf(secondary, bool(stbc), bool(wide)) if high_throughput else ()
    pairs = count // 2
    with_lltf = [len(lltf) + len(ht_ltf) * fields for fields in (1, 2 if stbc else 1)]
    alone = [_even(len(ht_ltf) * fields) for fields in (1, 2 if stbc else 1)]
    if ht_ltf and pairs in (*with_lltf, *map(_even, with_lltf)) and not legacy:
        return _Field("HT-LTF", 40 if wide else 20, len(lltf), ht_ltf)
    if pairs == len(lltf) or (ht_ltf and pairs in (*with_lltf, *map(_even, with_lltf))):
        return _Field("LLTF", 20, 0, lltf)
    if ht_ltf and pairs in alone and not legacy:
        return _Field("HT-LTF", 40 if wide else 20, 0, ht_ltf)
    raise WireError(
        f"unknown layout: {count} values with sig_mode {high_throughput}, bandwidth {wide}, stbc {stbc}, "
        f"secondary_channel {secondary}"
    )


_NONE, _ABOVE, _BELOW = 0, 1, 2
_SECONDARY = (_NONE, _ABOVE, _BELOW)


def _ht_ltf(secondary: int, stbc: bool, wide: bool) -> tuple[int, ...]:
    """Subcarriers of HT-LTF; where the channel has 40 MHz, 20 MHz frames are counted from their own half's centre."""
    if wide:
        if secondary == _NONE:
            raise WireError("unknown layout: a frame of 40 MHz in a channel of 20 MHz")
        return _from_zero(-60, 60) if stbc else _from_zero(-64, 63)
    if secondary == _NONE:
        return _from_zero(-32, 31)
    if not stbc:
        return _upward(-32, 31)
    return _upward(-30, 31) if secondary == _ABOVE else _upward(-32, 30)


def _even(pairs: int) -> int:
    """Lists are padded to whole words of two pairs."""
    return pairs + pairs % 2


def _newer_field(values: NDArray[np.int16]) -> _Field:
    """Field that a list of ESP32-C5 or C6 holds.

    These lines do not say what kind of frame it was. C5's lists hold one field without its guard subcarriers (two, if
    it was sent with STBC), C6's are as long as the FFT. Where the order is open, the zeros at the nulls tell.
    """
    silent: NDArray[np.bool_] = np.all(values.reshape(-1, 2) == 0, axis=1)
    pairs = len(silent)
    if pairs == 128:
        return _Field("HT-LTF", 40, 0, _upward(-64, 63))
    if pairs in (117, 234):
        return _Field("HT-LTF", 40, 0, _from_zero(-58, 58))
    if pairs == 245:
        return _Field("HE-LTF", 20, 0, _from_zero(-122, 122))
    if pairs in (57, 114):
        return _Field("HT-LTF", 20, 0, _upward(-28, 28) if silent[28] else _from_zero(-28, 28))
    if pairs == 53:
        return _Field("LLTF", 20, 0, _upward(-26, 26) if silent[26] else _from_zero(-26, 26))
    if pairs == 64 and silent[:4].all() and silent[61:].all():
        return _Field("LLTF" if silent[[4, 5, 59, 60]].all() else "HT-LTF", 20, 0, _upward(-32, 31))
    if pairs == 64 and silent[29:36].all():
        return _Field("LLTF" if silent[[27, 28, 36, 37]].all() else "HT-LTF", 20, 0, _from_zero(-32, 31))
    raise WireError(f"unknown layout: {len(values)} values from an ESP32-C5 or C6")


# First and last subcarrier on each side of the centre, and pilots (802.11, 17.3.5.10, 19.3.11.10 and 27.3.12.13).
_PLANS = {
    ("LLTF", 20): (1, 26, (7, 21)),
    ("HT-LTF", 20): (1, 28, (7, 21)),
    ("HT-LTF", 40): (2, 58, (11, 25, 53)),
    ("HE-LTF", 20): (2, 122, (22, 48, 90, 116)),
}
_INVALID_PAIRS = 2  # the first word of a list can be invalid: it is left out always, so that all frames are alike


@lru_cache(maxsize=64)
def _tones(field: _Field, pilots: bool) -> tuple[NDArray[np.int16], NDArray[np.intp]]:
    """Subcarriers that carry something, ascending, and the places of their pairs in the list."""
    first, last, pilot = _PLANS[field.name, field.bandwidth]
    wanted = {side * tone for side in (-1, 1) for tone in range(first, last + 1) if pilots or tone not in pilot}
    places = {tone: field.first + place for place, tone in enumerate(field.order) if tone in wanted}
    tones = [tone for tone in sorted(places) if places[tone] >= _INVALID_PAIRS]
    return np.array(tones, np.int16), np.array([places[tone] for tone in tones], np.intp)
