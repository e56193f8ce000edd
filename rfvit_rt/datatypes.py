# SPDX-License-Identifier: Apache-2.0
"""What flows through the house: frozen records over NumPy arrays.

Position is always an integer: ``sample_start`` counts samples from the start of the stream, in the stream's own count.
Seconds and timestamps are derived from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class IQBlock:
    """Consecutive samples of one stream, all taken at one sample rate and one centre frequency.

    Attributes
    ----------
    samples : (n,) complex64
        The samples.
    sample_start : int
        Position of the first sample in the stream. A jump against the end of the block before is transport loss.
    sample_rate : float
        Samples per second, in Hz.
    frequency : float or None
        Centre frequency in Hz; None where nothing said it.
    radio_lost : int
        Samples that the radio itself lost just before this block (its time stamps jumped, its count did not).
    received : float
        ``time.monotonic()`` when the block was complete in this process, in seconds.
    """

    samples: NDArray[np.complex64]
    sample_start: int
    sample_rate: float
    frequency: float | None = None
    radio_lost: int = 0
    received: float = 0.0

    @property
    def sample_end(self) -> int:
        """Position just past the last sample."""
        return self.sample_start + len(self.samples)


@dataclass(frozen=True, eq=False)
class CSIFrame:
    """What one received WiFi frame told of the channel.

    Attributes
    ----------
    csi : (antenna, subcarrier) complex64
        Channel estimate in the device's own units: one row for each pair of a receiving antenna and a transmitted
        stream, the streams of the first antenna first. Devices that give amplitudes alone have zero phase.
    subcarriers : (subcarrier,) int16
        OFDM subcarrier indices, ascending; nulls and pilots that the device does not measure are left out.
    timestamp : float
        Seconds on the clock of the device, unwrapped, or of this process where the device gives none.
    frame_index : int
        Position in the sender's own count, lost frames included. A jump against the frame before is loss.
    device : str
        Kind of device and bandwidth, for example ``nexmon bcm43455c0 20 MHz``. A window holds one device's frames.
    rssi : (antenna,) float32 or None
        Received power in dBm: of each row's antenna, or one value where the device does not tell antennas apart.
    agc : float or None
        Gain of the receiver in dB.
    received : float
        ``time.monotonic()`` when the frame was complete in this process, in seconds.
    """

    csi: NDArray[np.complex64]
    subcarriers: NDArray[np.int16]
    timestamp: float
    frame_index: int
    device: str
    rssi: NDArray[np.float32] | None = None
    agc: float | None = None
    received: float = 0.0


@dataclass(frozen=True, eq=False)
class Window:
    """The samples that one model input is made of; never spans a gap, a retune or a change of rate.

    Attributes
    ----------
    samples : (n,) complex64
        At most one model window; fewer where the stream was interrupted sooner.
    sample_start : int
        Position of the first sample in the stream.
    sample_rate : float
        Samples per second, in Hz.
    frequency : float or None
        Centre frequency in Hz; None where unknown.
    received : float
        ``time.monotonic()`` when the last sample arrived in this process, in seconds.
    segment : int
        Number of the uninterrupted stretch of stream that it was cut from. Positions alone do not tell: after a loss in
        the radio they go on, after a restart of the sender they begin again.
    """

    samples: NDArray[np.complex64]
    sample_start: int
    sample_rate: float
    frequency: float | None = None
    received: float = 0.0
    segment: int = 0


@dataclass(frozen=True, eq=False)
class Mask:
    """Class probabilities of a stretch of spectrum.

    Attributes
    ----------
    probabilities : (time step, frequency bin, class) float32
        Sums to one over the classes. Bins ascend in frequency.
    sample_start : int
        Position of the first sample of the first time step.
    sample_count : int
        Samples that the steps cover.
    sample_rate : float
        Samples per second, in Hz. The centre of bin ``k`` of ``n`` lies ``(k - n / 2) * bin_width`` from the centre
        frequency, as FFTs have it.
    frequency : float or None
        Centre frequency in Hz; None where unknown.
    segment : int
        As in :class:`Window`; nothing is joined across the border of two segments.
    """

    probabilities: NDArray[np.float32]
    sample_start: int
    sample_count: int
    sample_rate: float
    frequency: float | None = None
    segment: int = 0

    @property
    def sample_end(self) -> int:
        """Position just past the last sample."""
        return self.sample_start + self.sample_count

    @property
    def step_count(self) -> int:
        """Number of time steps."""
        return int(self.probabilities.shape[0])

    @property
    def bin_width(self) -> float:
        """Width of a frequency bin in Hz."""
        return self.sample_rate / self.probabilities.shape[1]

    def lower_edge(self, frequency_bin: int) -> float:
        """Lower edge of a bin in Hz, which is the upper edge of the one below; absolute where the centre is known."""
        from_centre = (frequency_bin - self.probabilities.shape[1] / 2 - 0.5) * self.bin_width
        return (self.frequency or 0.0) + from_centre


@dataclass(frozen=True)
class Annotation:
    """One labelled region of the stream, in SigMF's terms.

    Attributes
    ----------
    label : str
        Class name, for example ``LTE``.
    sample_start, sample_count : int
        Where it is in the stream, in samples.
    freq_lower_edge, freq_upper_edge : float
        Band in Hz: absolute where the centre frequency is known, else relative to the centre.
    confidence : float
        Mean probability of the label over the region's labelled pixels, 0 to 1.
    sample_rate : float
        Samples per second, in Hz, at which ``sample_start`` and ``sample_count`` count.
    frequency : float or None
        Centre frequency in Hz of the stream at that place; None where unknown.
    """

    label: str
    sample_start: int
    sample_count: int
    freq_lower_edge: float
    freq_upper_edge: float
    confidence: float
    sample_rate: float
    frequency: float | None = None

    @property
    def sample_end(self) -> int:
        """Position just past the last sample."""
        return self.sample_start + self.sample_count


@dataclass(frozen=True)
class Emission:
    """One transmitter's band over the whole stream: recurring annotations of one label in one band.

    Attributes
    ----------
    label : str
        Class name.
    freq_lower_edge, freq_upper_edge : float
        Band in Hz, as in :class:`Annotation`.
    first_seen, last_seen : int
        Stream positions of the first sample and just past the last sample, in samples.
    burst_count : int
        Annotations it consists of.
    duty_cycle : float
        Share of what was heard there between first and last seen that is covered by its annotations, 0 to 1: neither
        samples that were lost nor those at other centre frequencies count.
    confidence : float
        Mean confidence of its annotations, weighted by their durations.
    is_absolute : bool
        Whether the band is one of absolute frequencies; else it is relative to the centre.
    """

    label: str
    freq_lower_edge: float
    freq_upper_edge: float
    first_seen: int
    last_seen: int
    burst_count: int
    duty_cycle: float
    confidence: float
    is_absolute: bool = True


@dataclass(frozen=True)
class Activity:
    """What a person does over a stretch of time.

    Attributes
    ----------
    label : str
        One of the model's labels, or ``unknown`` where no label is sure enough.
    time_start, time_end : float
        Seconds on the clock of the frames' time stamps; :mod:`rfvit_rt.sensing` counts them from the first frame.
    frame_start, frame_count : int
        Position of the first frame in the stream's own count, and frames from there to the end, lost ones included.
    confidence : float
        Mean probability of the label, 0 to 1.
    frame_rate : float
        Frames that arrived per second.
    lost : int
        Frames of the stretch that did not arrive.
    """

    label: str
    time_start: float
    time_end: float
    frame_start: int
    frame_count: int
    confidence: float
    frame_rate: float
    lost: int = 0
