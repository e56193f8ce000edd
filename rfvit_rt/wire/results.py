# SPDX-License-Identifier: Apache-2.0
"""Results as JSON: annotations, emissions, windows, activities and the state of a run, with SigMF's field names.

Every message is one JSON object with ``"type"`` and ``"version"``. Positions are sample indices, frequencies Hz. What
comes of CSI has frames in place of samples, and seconds since the first frame, by the clock of the frames' time stamps.
Fields that SigMF defines keep its names (``core:``); those of our own begin with ``rfvit:``. A reader ignores fields
it does not know and skips messages of types it does not know: later releases may send more of both. A change that a
reader must know of raises the version.

``results.schema.json`` beside this file says the same as a JSON schema.

The type comes first in the bytes, so that a ZeroMQ subscriber can have only what it wants: see :func:`prefix`.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import Activity, Annotation, Emission
from rfvit_rt.errors import WireError
from rfvit_rt.wire.summary import MAX_BINS, MAX_LABELS, MAX_STEPS, WindowSummary

VERSION = 1
TYPES = ("annotation", "emission", "status", "window", "activity", "sensing")
MAX_BYTES = 16384
MAX_LABEL = 128
MAX_INTEGER = 2**63 - 1
_SEPARATORS = (",", ":")


@dataclass(frozen=True)
class Status:
    """How a run is doing: sent about once a second of stream time, and at its end.

    Attributes
    ----------
    position : int
        Stream position up to which samples were analysed.
    sample_rate : float
        Samples per second, in Hz, that the stream claims.
    frequency : float or None
        Centre frequency in Hz; None where unknown.
    achieved_rate : float
        Samples per second, in Hz, that were worked through since the first one came.
    transport_lost, radio_lost, dropped : int
        Samples lost so far: on the way from the sender, in the radio, and here because they came too fast to be used.
    sample_age : float or None
        Median age of a window's last sample when its result was ready, in s; None before the first.
    """

    position: int
    sample_rate: float
    frequency: float | None
    achieved_rate: float
    transport_lost: int
    radio_lost: int
    dropped: int
    sample_age: float | None


@dataclass(frozen=True)
class SensingStatus:
    """How sensing is doing: sent with the answer for every window of CSI, and at the end of a run.

    Attributes
    ----------
    label : str
        Answer for the newest window alone; the activities, which follow, are smoothed over windows. ``unknown``, with a
        confidence of 0, where frames have been too rare for an answer for longer than a window.
    confidence : float
        Probability of the newest window's likeliest label, 0 to 1.
    time : float
        End of the newest window in s.
    frame_rate : float
        Frames of the newest window that arrived per second.
    recorded : bool
        Whether the frames come from a file, or from a sender that says it replays one.
    frames, lost, dropped, foreign, malformed : int
        Frames so far: used; lost on the way; dropped here because they came too fast; from other senders; unreadable.
    result_age : float or None
        Seconds from the arrival of the newest window's last frame to its result; None where frames come from a file.
    """

    label: str
    confidence: float
    time: float
    frame_rate: float
    recorded: bool
    frames: int
    lost: int
    dropped: int
    foreign: int
    malformed: int
    result_age: float | None


# A Union, since GNU Radio's Python evaluates this line.
Result = Union[Annotation, Emission, Status, WindowSummary, Activity, SensingStatus]  # noqa: UP007


def to_dict(result: Result) -> dict[str, Any]:
    """Give a result as a JSON object; the inverse of `from_dict`."""
    if isinstance(result, Annotation):
        return {
            "type": "annotation",
            "version": VERSION,
            "core:sample_start": int(result.sample_start),
            "core:sample_count": int(result.sample_count),
            "core:freq_lower_edge": float(result.freq_lower_edge),
            "core:freq_upper_edge": float(result.freq_upper_edge),
            "core:label": result.label,
            "core:sample_rate": float(result.sample_rate),
            "core:frequency": _float_or_none(result.frequency),
            "rfvit:confidence": float(result.confidence),
        }
    if isinstance(result, Emission):
        return {
            "type": "emission",
            "version": VERSION,
            "core:freq_lower_edge": float(result.freq_lower_edge),
            "core:freq_upper_edge": float(result.freq_upper_edge),
            "core:label": result.label,
            "rfvit:first_seen": int(result.first_seen),
            "rfvit:last_seen": int(result.last_seen),
            "rfvit:burst_count": int(result.burst_count),
            "rfvit:duty_cycle": float(result.duty_cycle),
            "rfvit:confidence": float(result.confidence),
            "rfvit:absolute": bool(result.is_absolute),
        }
    if isinstance(result, WindowSummary):
        return {
            "type": "window",
            "version": VERSION,
            "core:sample_start": int(result.sample_start),
            "core:sample_count": int(result.sample_count),
            "core:sample_rate": float(result.sample_rate),
            "core:frequency": _float_or_none(result.frequency),
            "rfvit:labels": list(result.labels),
            "rfvit:shares": [float(share) for share in result.shares],
            "rfvit:steps": int(result.class_map.shape[0]),
            "rfvit:bins": int(result.class_map.shape[1]),
            "rfvit:class_map": base64.b64encode(result.class_map.tobytes()).decode("ascii"),  # step after step
        }
    if isinstance(result, Activity):
        return {
            "type": "activity",
            "version": VERSION,
            "core:label": result.label,
            "rfvit:time_start": float(result.time_start),
            "rfvit:time_end": float(result.time_end),
            "rfvit:frame_start": int(result.frame_start),
            "rfvit:frame_count": int(result.frame_count),
            "rfvit:confidence": float(result.confidence),
            "rfvit:frame_rate": float(result.frame_rate),
            "rfvit:lost": int(result.lost),
        }
    if isinstance(result, SensingStatus):
        return {
            "type": "sensing",
            "version": VERSION,
            "core:label": result.label,
            "rfvit:confidence": float(result.confidence),
            "rfvit:time": float(result.time),
            "rfvit:frame_rate": float(result.frame_rate),
            "rfvit:recorded": bool(result.recorded),
            "rfvit:frames": int(result.frames),
            "rfvit:lost": int(result.lost),
            "rfvit:dropped": int(result.dropped),
            "rfvit:foreign": int(result.foreign),
            "rfvit:malformed": int(result.malformed),
            "rfvit:result_age": _float_or_none(result.result_age),
        }
    return {
        "type": "status",
        "version": VERSION,
        "core:sample_rate": float(result.sample_rate),
        "core:frequency": _float_or_none(result.frequency),
        "rfvit:position": int(result.position),
        "rfvit:achieved_rate": float(result.achieved_rate),
        "rfvit:transport_lost": int(result.transport_lost),
        "rfvit:radio_lost": int(result.radio_lost),
        "rfvit:dropped": int(result.dropped),
        "rfvit:sample_age": _float_or_none(result.sample_age),
    }


def from_dict(message: object) -> Result:
    """Check a JSON object and read the result from it.

    Raises
    ------
    WireError
        If it is not an object, of another type or version, or a field is missing, of the wrong kind or out of range.
    """
    if not isinstance(message, dict):
        raise WireError(f"a result is a {_kind(message)}; expected a JSON object")
    fields = _Fields(message)
    kind = fields.text("type")
    if kind not in TYPES:
        raise WireError(f"a result has the type {kind!r}; expected {', '.join(TYPES[:-1])} or {TYPES[-1]}")
    version = fields.integer("version")
    if version != VERSION:
        raise WireError(
            f"a result has version {version}; this release reads {VERSION}: use the same release on both ends"
        )
    if kind == "annotation":
        lower, upper = fields.band()
        return Annotation(
            label=fields.text("core:label"),
            sample_start=fields.integer("core:sample_start"),
            sample_count=fields.integer("core:sample_count", at_least=1),
            freq_lower_edge=lower,
            freq_upper_edge=upper,
            confidence=fields.share("rfvit:confidence"),
            sample_rate=fields.positive("core:sample_rate"),
            frequency=fields.number_or_none("core:frequency"),
        )
    if kind == "emission":
        lower, upper = fields.band()
        first_seen = fields.integer("rfvit:first_seen")
        return Emission(
            label=fields.text("core:label"),
            freq_lower_edge=lower,
            freq_upper_edge=upper,
            first_seen=first_seen,
            last_seen=fields.integer("rfvit:last_seen", at_least=first_seen),
            burst_count=fields.integer("rfvit:burst_count", at_least=1),
            duty_cycle=fields.share("rfvit:duty_cycle"),
            confidence=fields.share("rfvit:confidence"),
            is_absolute=fields.truth("rfvit:absolute"),
        )
    if kind == "window":
        labels = fields.labels("rfvit:labels")
        return WindowSummary(
            sample_start=fields.integer("core:sample_start"),
            sample_count=fields.integer("core:sample_count", at_least=1),
            sample_rate=fields.positive("core:sample_rate"),
            frequency=fields.number_or_none("core:frequency"),
            labels=labels,
            shares=fields.shares("rfvit:shares", len(labels)),
            class_map=fields.class_map("rfvit:class_map", len(labels)),
        )
    if kind == "activity":
        time_start = fields.number("rfvit:time_start")
        return Activity(
            label=fields.text("core:label"),
            time_start=time_start,
            time_end=fields.number("rfvit:time_end", at_least=time_start),
            frame_start=fields.integer("rfvit:frame_start"),
            frame_count=fields.integer("rfvit:frame_count"),
            confidence=fields.share("rfvit:confidence"),
            frame_rate=fields.number("rfvit:frame_rate", at_least=0.0),
            lost=fields.integer("rfvit:lost"),
        )
    if kind == "sensing":
        return SensingStatus(
            label=fields.text("core:label"),
            confidence=fields.share("rfvit:confidence"),
            time=fields.number("rfvit:time"),
            frame_rate=fields.number("rfvit:frame_rate", at_least=0.0),
            recorded=fields.truth("rfvit:recorded"),
            frames=fields.integer("rfvit:frames"),
            lost=fields.integer("rfvit:lost"),
            dropped=fields.integer("rfvit:dropped"),
            foreign=fields.integer("rfvit:foreign"),
            malformed=fields.integer("rfvit:malformed"),
            result_age=fields.number_or_none("rfvit:result_age"),
        )
    return Status(
        position=fields.integer("rfvit:position"),
        sample_rate=fields.positive("core:sample_rate"),
        frequency=fields.number_or_none("core:frequency"),
        achieved_rate=fields.number("rfvit:achieved_rate"),
        transport_lost=fields.integer("rfvit:transport_lost"),
        radio_lost=fields.integer("rfvit:radio_lost"),
        dropped=fields.integer("rfvit:dropped"),
        sample_age=fields.number_or_none("rfvit:sample_age"),
    )


def encode(result: Result) -> bytes:
    """Give a result as one line of JSON, ASCII only, without a line feed.

    Raises
    ------
    WireError
        If a number is not finite, which JSON cannot say.
    """
    try:
        return json.dumps(to_dict(result), allow_nan=False, separators=_SEPARATORS).encode("ascii")
    except ValueError as error:
        raise WireError(f"{result} holds a number that is not finite; JSON cannot carry it") from error


def prefix(kind: str) -> bytes:
    """First bytes of every message of a type (``annotation``, ...) and of no other: what to subscribe to for it."""
    return json.dumps({"type": kind}, separators=_SEPARATORS).encode("ascii").replace(b"}", b",")


def decode(data: bytes) -> Result:
    """Read a result from bytes of any origin; the inverse of `encode`.

    Raises
    ------
    WireError
        If the bytes are too many, not JSON, or not a valid result.
    """
    if len(data) > MAX_BYTES:
        raise WireError(f"a result has {len(data)} bytes; expected at most {MAX_BYTES}")
    try:
        message = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a result is not JSON ({error}): {data[:40]!r}; is the sender rfvit?") from error
    return from_dict(message)


class _Fields:
    """The fields of one message, checked one by one."""

    def __init__(self, message: dict[str, Any]) -> None:
        self._message = message

    def _get(self, name: str) -> object:
        if name not in self._message:
            raise WireError(f"a result lacks the field {name}; is the sender rfvit?")
        return self._message[name]

    def text(self, name: str) -> str:
        value = self._get(name)
        # Printable, so that no result can move a terminal's cursor or break a line.
        if not isinstance(value, str) or not 0 < len(value) <= MAX_LABEL or not value.isprintable():
            raise WireError(f"{name} is {_shown(value)}; expected 1 to {MAX_LABEL} printable characters")
        return value

    def labels(self, name: str) -> tuple[str, ...]:
        return tuple(_Fields({name: value}).text(name) for value in self._list(name, 1, MAX_LABELS))

    def _list(self, name: str, least: int, most: int) -> list[object]:
        value = self._get(name)
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise WireError(f"{name} is {_shown(value)}; expected a list of {least} to {most}")
        return value

    def integer(self, name: str, at_least: int = 0, at_most: int = MAX_INTEGER) -> int:
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
            raise WireError(f"{name} is {_shown(value)}; expected an integer from {at_least} to {at_most}")
        return value

    def number(self, name: str, at_least: float = -math.inf) -> float:
        value = self._get(name)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER:
            value = float(value)
        if not isinstance(value, float) or not math.isfinite(value):
            raise WireError(f"{name} is {_shown(value)}; expected a finite number")
        if value < at_least:
            raise WireError(f"{name} is {value}; expected at least {at_least:g}")
        return value

    def truth(self, name: str) -> bool:
        value = self._get(name)
        if not isinstance(value, bool):
            raise WireError(f"{name} is {_shown(value)}; expected true or false")
        return value

    def number_or_none(self, name: str) -> float | None:
        return None if self._get(name) is None else self.number(name)

    def positive(self, name: str) -> float:
        value = self.number(name)
        if value <= 0:
            raise WireError(f"{name} is {value}; expected more than 0")
        return value

    def share(self, name: str) -> float:
        value = self.number(name)
        if not 0 <= value <= 1:
            raise WireError(f"{name} is {value}; expected 0 to 1")
        return value

    def shares(self, name: str, count: int) -> tuple[float, ...]:
        return tuple(_Fields({name: value}).share(name) for value in self._list(name, count, count))

    def class_map(self, name: str, classes: int) -> NDArray[np.uint8]:
        steps = self.integer("rfvit:steps", at_least=1, at_most=MAX_STEPS)
        bins = self.integer("rfvit:bins", at_least=1, at_most=MAX_BINS)
        value = self._get(name)
        try:
            data = base64.b64decode(value if isinstance(value, str) else "", validate=True)
        except ValueError:  # not ASCII, or not base64
            data = b""
        if len(data) != steps * bins or max(data) >= classes:
            expected = f"{steps} times {bins} class numbers below {classes} in base64"
            raise WireError(f"{name} is {_shown(value)}; expected {expected}")
        return np.frombuffer(data, np.uint8).reshape(steps, bins)

    def band(self) -> tuple[float, float]:
        lower, upper = self.number("core:freq_lower_edge"), self.number("core:freq_upper_edge")
        if lower >= upper:
            raise WireError(f"core:freq_lower_edge is {lower}; expected less than the upper edge, {upper}")
        return lower, upper


def _float_or_none(value: float | None) -> float | None:
    return None if value is None else float(value)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: object) -> str:
    return type(value).__name__


def _shown(value: object) -> str:
    """A hostile value, in few characters."""
    if isinstance(value, (str, float, bool)) or value is None:
        return ascii(value)[:40]
    # An integer's digits may be too many to convert, and a list's items too many to show.
    return str(value) if isinstance(value, int) and abs(value) <= 2 * MAX_INTEGER else f"a {_kind(value)}"
