# SPDX-License-Identifier: Apache-2.0
"""What the server and the page say to each other, over one WebSocket at ``/stream``.

HTTP: ``GET /`` is the page, ``GET /static/NAME`` a file of the page, ``GET /health`` is ``{"status": "ok"}``.

From the server, as text: JSON objects, each with ``"type"``. Times are seconds of the stream: 0 is its first sample,
losses count, and they go on where a sender begins anew. Frequencies are Hz: absolute where the centre frequency is
known, else offsets from it; ``frequency`` is null in the latter case. A page ignores fields and types that it does not
know. The first message is ``hello``; what was known before the page connected follows it, then what is new. Only
``answer``, ``saved`` and ``error`` are not told again to who comes late.

=============== ======================================================================================================
``hello``       once, see :class:`Hello`. Where ``run`` differs from that of an earlier connection, another run is
                served and nothing that the page still shows belongs to it.
``status``      about once a second, see :class:`Status`
``annotation``  a box, see :class:`Box`. One whose ``id`` came before replaces that: somebody corrected it.
``deleted``     ``{"id"}``: somebody deleted that box
``emissions``   ``{"list": [...], "unlisted"}``, about once a second, see :class:`EmissionRow`; replaces the list
                before. ``unlisted`` is how many there were besides, which were seen earlier.
``occupancy``   ``{"time", "shares": {label: share}}``: share of the pixels about that time that each label has,
                background included. One for each stretch of some 30 ms.
``activity``    ``{"label", "time_start", "time_end", "confidence", "frame_rate", "lost"}``: an interval that is over
``answer``      ``{"label", "confidence", "time"}``: of the newest window of CSI alone
``saved``       ``{"kind": "recording" | "corrections", "path", "count", "message"}``: written, with so many
                annotations; ``message`` is a line for people, "" where there is nothing more to say
``error``       ``{"message"}``: a line for people; the connection goes on
``end``         ``{"reason"}``: the run is over; what was shown can still be looked at, corrected and saved
=============== ======================================================================================================

From the server, as bytes: a tile of the waterfall, little-endian, see :class:`Tile`:

====== ======== ======================================================================================================
offset type
====== ======== ======================================================================================================
0      4 bytes  ``RFVT``
4      uint8    version, 1
5      uint8    kind: 0 spectrum, 1 CSI
6      uint16   rows
8      uint16   columns
10     uint16   reserved, 0
12     int64    stream position of the first row, in samples (spectrum) or frames (CSI)
20     float64  time of the first row's beginning, in s of the stream
28     float64  seconds per row
36     float64  spectrum: lower edge of the lowest column in Hz; CSI: first subcarrier index - 0.5
44     float64  spectrum: column width in Hz; CSI: subcarrier indices in a column
52     uint8[]  power, row after row: 0 to 255 over ``db_min`` to ``db_max`` of ``hello``
...    uint8[]  class: number of the label in ``labels`` of ``hello``; 0 is background, or an unknown activity
...    uint8[]  confidence: probability of that class times 255
====== ======== ======================================================================================================

Rows ascend in time, columns in frequency; the last column may reach beyond the band. Tiles follow each other and do
not overlap, but for ``since`` (below); time that no tile covers was lost, or skipped where the server or this
connection was too slow (``rows_dropped``, ``frames_dropped``). A cell that stands for several pixels shows the
strongest power; the signal that most of its labelled pixels carry, however few they are, so that a short burst shows,
and background where none is labelled; and the highest confidence of the pixels that carry it.

In a CSI tile, power is the amplitude, the mean of all antennas, 0 to 255 over ``db_min`` to ``db_max`` as well (linear
there: ``power_unit`` says what it is), and class and confidence are the same all along a row.

From the page, as text: JSON objects of at most `MAX_CLIENT_BYTES`. What is wrong with one is answered by ``error``.

=========== ==========================================================================================================
``view``    ``{"columns", "rows_per_second", "since"?}``: what the page shows, which tiles are decimated to; the server
            never sends more than the model sees, 6400 rows/s with the shipped models. ``since``, if given and not null,
            is a time in s: all tiles from there on, as far as they are still held (``history_seconds``), come anew,
            after an empty one (0 rows) that says so: drop what is shown from that tile's ``time_start`` on.
``correct`` ``{"id", "label", "time_start", "time_end", "freq_lower_edge", "freq_upper_edge", "was"?}``: the box as it
            should be; ``id`` null: drawn anew. ``label`` may be one that the model does not know. ``was`` is ignored:
            the server knows what it was.
``delete``  ``{"id"}``: there is nothing there
``save``    ``{"seconds"}``: write the last so many seconds of samples, with their annotations
=========== ==========================================================================================================
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.errors import WireError

VERSION = 1
MAX_CLIENT_BYTES = 64 * 1024
MAX_LABEL = 64
MIN_COLUMNS, MAX_COLUMNS = 16, 4096
MAX_ROWS = 1024
"""Most rows of a tile."""

SPECTRUM, CSI = 0, 1
_MAGIC = b"RFVT"
_HEADER = struct.Struct("<4sBBHHHqdddd")


# ---- from the server ----


@dataclass(frozen=True)
class Hello:
    """What is served.

    Attributes
    ----------
    task : str
        ``segmentation`` or ``activity``.
    title : str
        Name of the recording or stream; from outside, so never to be taken for markup.
    run : str
        Differs between runs.
    labels : sequence of str
        Names of the classes by their number in tiles; the first is background, or an unknown activity.
    colours : mapping of str to str
        Colour of each label but the first, as ``#rrggbb``.
    model, engine : str
        What runs.
    sample_rate, frequency : float or None
        In Hz, where known so far.
    recorded : bool or None
        Whether a recording is read or replayed; None where that is not known yet.
    simulated : bool
        Whether it is known that no radio received it.
    step_seconds : float
        Time step of the model's pixels, or between the columns of CSI.
    n_bins : int
        Frequency bins of the model's pixels over the whole band, or subcarriers; 0 where not known yet.
    db_min, db_max : float
        What power 0 and 255 stand for.
    power_unit : str
        Unit of these.
    history_seconds : float
        How far back the server can go for who comes late.
    duration : float or None
        Seconds that the stream will last, where known.
    can_save, can_correct : bool
        Whether ``save``, ``correct`` and ``delete`` are of use.
    save_seconds : float
        Most seconds that can be saved.
    """

    task: str
    title: str
    run: str
    labels: Sequence[str]
    colours: Mapping[str, str]
    model: str
    engine: str
    sample_rate: float | None
    frequency: float | None
    recorded: bool | None
    simulated: bool
    step_seconds: float
    n_bins: int
    db_min: float
    db_max: float
    power_unit: str
    history_seconds: float
    duration: float | None
    can_save: bool
    can_correct: bool
    save_seconds: float
    version: int = VERSION


@dataclass(frozen=True)
class Status:
    """How the run and this connection are doing.

    Attributes
    ----------
    position : int
        Stream position up to which was analysed, in samples or frames.
    seconds : float
        The same as time of the stream.
    sample_rate, frequency : float or None
        In Hz; of CSI, frames/s and None.
    achieved_rate : float or None
        Samples per second that were worked through since the first one came; of CSI, frames per second of the newest
        window.
    lost : mapping of str to int
        What did not reach the model: samples by cause ``transport``, ``radio``, ``dropped`` and ``unusable``; of CSI,
        frames and packets by ``lost``, ``dropped``, ``foreign`` and ``malformed``.
    restarts : int
        Times the sender began anew.
    age : mapping of str to float, or None
        Sample age in s: ``p50``, ``p95`` and ``p99``, each the upper bound of the histogram's class that it lies in.
        None before the first window, and where frames come from a file.
    windows : int
        Analysed so far.
    windows_per_second : float
        Lately.
    clients : int
        Pages connected.
    frames_dropped : int
        Tiles and messages that this connection was too slow for.
    rows_dropped : int
        Stretches of the waterfall that the server itself was too slow for.
    recorded, simulated : bool
        As in :class:`Hello`.
    ended : bool
        Whether the run is over.
    """

    position: int
    seconds: float
    sample_rate: float | None
    frequency: float | None
    achieved_rate: float | None
    lost: Mapping[str, int]
    restarts: int
    age: Mapping[str, float] | None
    windows: int
    windows_per_second: float
    clients: int
    frames_dropped: int
    rows_dropped: int
    recorded: bool | None
    simulated: bool
    ended: bool


@dataclass(frozen=True)
class Box:
    """An annotation as it is shown.

    Attributes
    ----------
    id : int
        Names it in this run.
    label : str
    confidence : float
        0 to 1; 1 where a person said it.
    sample_start, sample_count : int
        Where it is in the stream, in samples.
    time_start, time_end : float
        The same in s of the stream.
    freq_lower_edge, freq_upper_edge : float
        Band in Hz.
    frequency : float or None
        Centre frequency there in Hz; None where unknown, and the edges are offsets.
    origin : str
        ``model``; ``corrected`` or ``drawn`` by a person.
    was : mapping or None
        What the model said, where corrected: ``label``, ``confidence``, and the times and edges.
    """

    id: int
    label: str
    confidence: float
    sample_start: int
    sample_count: int
    time_start: float
    time_end: float
    freq_lower_edge: float
    freq_upper_edge: float
    frequency: float | None
    origin: str = "model"
    was: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EmissionRow:
    """An emission as it is shown; fields as in :class:`rfvit_rt.datatypes.Emission`, but times in s of the stream.

    ``is_current`` is whether it was seen lately.
    """

    label: str
    freq_lower_edge: float
    freq_upper_edge: float
    first_seen: float
    last_seen: float
    burst_count: int
    duty_cycle: float
    confidence: float
    is_current: bool


_TYPES = {Hello: "hello", Status: "status", Box: "annotation"}


def message(kind: str, /, **values: Any) -> str:
    """Encode a message of the server's.

    Raises
    ------
    ValueError
        If a number is not finite, which JSON cannot say.
    """
    return json.dumps({"type": kind, **values}, allow_nan=False, separators=(",", ":"))


def encode(record: Hello | Status | Box) -> str:
    """Encode a record as the message it is; raises as :func:`message`."""
    return message(_TYPES[type(record)], **asdict(record))


@dataclass(frozen=True, eq=False)
class Tile:
    """A stretch of the waterfall.

    Attributes
    ----------
    kind : int
        `SPECTRUM` or `CSI`.
    sample_start : int
        Stream position of the first row, in samples or frames.
    time_start, row_seconds : float
        Time of the first row's beginning, and duration of each, in s of the stream.
    low_edge, column_width : float
        Lower edge of the lowest column, and width of each: Hz, or subcarrier indices.
    power, class_number, confidence : (row, column) uint8
        As the module says.
    samples_per_row : float
        Samples or frames of the stream in a row. It is not sent: 0 in a tile that was read.
    """

    kind: int
    sample_start: int
    time_start: float
    row_seconds: float
    low_edge: float
    column_width: float
    power: NDArray[np.uint8]
    class_number: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    samples_per_row: float = 0.0

    def encode(self) -> bytes:
        """Give it as bytes."""
        rows, columns = self.power.shape
        place = (self.sample_start, self.time_start, self.row_seconds, self.low_edge, self.column_width)
        header = _HEADER.pack(_MAGIC, VERSION, self.kind, rows, columns, 0, *place)
        return b"".join((header, self.power.tobytes(), self.class_number.tobytes(), self.confidence.tobytes()))


def decode_tile(data: bytes) -> Tile:
    """Read a tile; the inverse of :meth:`Tile.encode`.

    Raises
    ------
    WireError
        If it is none, or of another version.
    """
    if len(data) < _HEADER.size:
        raise WireError(f"a tile has {len(data)} bytes; its header alone takes {_HEADER.size}")
    magic, version, kind, rows, columns, _, *place = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        raise WireError(f"{data[:5]!r} does not begin a tile of version {VERSION}; is the sender rfvit?")
    if len(data) != _HEADER.size + 3 * rows * columns:
        raise WireError(f"a tile of {rows} times {columns} cells has {len(data)} bytes; it was cut off")
    planes = np.frombuffer(data, np.uint8, offset=_HEADER.size).reshape(3, rows, columns)
    return Tile(kind, *place, *planes)


# ---- from the page ----


@dataclass(frozen=True)
class View:
    """What a page shows.

    Attributes
    ----------
    columns : int
        Most columns that a tile shall have.
    rows_per_second : float
        Most rows in a second of the stream.
    since : float or None
        Time in s of the stream from which to send tiles again.
    """

    columns: int = 1024
    rows_per_second: float = 200.0
    since: float | None = None


@dataclass(frozen=True)
class Correct:
    """A box as a person says it should be; fields as in :class:`Box`, and ``id`` None where it is drawn anew."""

    id: int | None
    label: str
    time_start: float
    time_end: float
    freq_lower_edge: float
    freq_upper_edge: float


@dataclass(frozen=True)
class Delete:
    """There is nothing where this box is."""

    id: int


@dataclass(frozen=True)
class Save:
    """Write the last so many seconds of samples."""

    seconds: float


Request = View | Correct | Delete | Save


def parse(text: str) -> Request:
    """Read a message of a page's, which may be anybody's.

    Raises
    ------
    WireError
        If it is no message, or a field is missing, of the wrong kind or out of range.
    """
    if len(text) > MAX_CLIENT_BYTES:
        raise WireError(f"the message has {len(text)} characters; expected at most {MAX_CLIENT_BYTES}")
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireError("the message is not JSON") from error
    if not isinstance(fields, dict):
        raise WireError("the message is not a JSON object")
    kind = fields.get("type")
    if kind == "view":
        columns = round(_number(fields, "columns", MIN_COLUMNS, MAX_COLUMNS))
        since = None if fields.get("since") is None else _number(fields, "since", 0, 1e12)
        return View(columns, _number(fields, "rows_per_second", 0.1, 1e6), since)
    if kind == "correct":
        return _correct(fields)
    if kind == "delete":
        return Delete(_identity(fields))
    if kind == "save":
        return Save(_number(fields, "seconds", 0.001, 86400))
    raise WireError("the message's type is none of view, correct, delete and save")


def _correct(fields: dict[str, Any]) -> Correct:
    start, low = _number(fields, "time_start", 0, 1e12), _number(fields, "freq_lower_edge", -1e12, 1e12)
    end, high = _number(fields, "time_end", 0, 1e12), _number(fields, "freq_upper_edge", -1e12, 1e12)
    if not (start < end and low < high):
        raise WireError("the box has no area; expected time_start before time_end, and the lower edge below the upper")
    identity = None if fields.get("id") is None else _identity(fields)
    return Correct(identity, _label(fields), start, end, low, high)


def _label(fields: dict[str, Any]) -> str:
    label = fields.get("label")
    if not isinstance(label, str) or not 0 < len(label) <= MAX_LABEL or not label.isprintable() or not label.strip():
        raise WireError(f"label is not a text of 1 to {MAX_LABEL} printable characters")
    return label.strip()


def _identity(fields: dict[str, Any]) -> int:
    value = fields.get("id")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise WireError("id is not the number of a box")
    return value


def _number(fields: dict[str, Any], name: str, least: float, most: float) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise WireError(f"{name} is not a number from {least:g} to {most:g}")
    assert math.isfinite(value)  # a comparison with NaN is false
    return float(value)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
