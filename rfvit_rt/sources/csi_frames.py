# SPDX-License-Identifier: Apache-2.0
"""Packets → CSI frames: whose they are, which belong to one frame, what is missing, and when each was taken.

One stream may carry packets of several transmitters, kinds of frame and bandwidths, of which a model can use one. The
first packets settle which: the most frequent *link* (transmitter, receiver, kind of device, bandwidth) is followed, all
others are counted as foreign. Where only others come for two seconds (the sniffer was set to another channel, say), it
is settled anew.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import CSIFrame

SETTLING_FRAMES = 16
"""Frames of the most frequent link after which a live stream is settled."""

RESTART_GAP = 10.0
"""Seconds put between the last frame before a device's clock was set back and the first after it."""

MAX_REASONS = 16
MAX_LINKS = 64

_MOST_WAITING = 4096  # packets; those of a frame come as up to 64
_PATIENCE = 2.0  # seconds without a frame of the link that is followed, while others come
_LATE = 1.0  # seconds: a clock that is set back by less belongs to a frame that was overtaken on its way
_SLOW = 60.0  # seconds by which a frame may be behind its device's clock on its way
_SHORTEST_STEP = 1e-6  # seconds between frames whose time stamps are the same
_LARGEST_LOSS = 8  # part of the sender's numbers: a larger jump is another count, or the sender's restart
_MOST_LOST = 2**31  # frames at once, likewise
_REORDERED = 64  # numbers by which frames overtake each other: a block acknowledgement's window (802.11, 10.25)


@dataclass(frozen=True)
class Link:
    """Whose frames these are, and of what kind.

    Attributes
    ----------
    device : str
        Kind of device and bandwidth.
    mac : str
        Transmitter; empty where the device does not tell.
    receiver : str
        Where the packets came from, for example an IP address; empty in files.
    kind : str
        Kind of WiFi frame, where frames of one transmitter are counted apart; empty where that is not known.
    """

    device: str
    mac: str = ""
    receiver: str = ""
    kind: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.device, self.mac, self.receiver, self.kind) if part)


@dataclass(frozen=True, eq=False)
class Packet:
    """What one packet, line or record told of a frame.

    Attributes
    ----------
    link : Link
        Whose frame it is.
    csi : (row, subcarrier) complex64
        All of the frame's antennas, or those that this packet is about.
    subcarriers : (subcarrier,) int16
        Their indices.
    time : float
        When it came, in seconds on a clock that `clock` does not replace.
    part : int
        Which part of the frame it is, for devices that send it in several.
    count : int or None
        The sender's count; None where it has none.
    count_modulus : int
        Where that count begins again.
    clock : int or None
        The device's own clock in µs; None where it has none.
    clock_modulus : int
        Where that clock begins again.
    rssi : (row,) or (1,) float32, or None
        In dBm.
    agc : float or None
        In dB.
    received : float
        ``time.monotonic()`` when it came, in seconds.
    record : object
        What the packet was decoded to, where :data:`Select` needs more of it.
    """

    link: Link
    csi: NDArray[np.complex64]
    subcarriers: NDArray[np.int16]
    time: float
    part: int = 0
    count: int | None = None
    count_modulus: int = 1 << 62
    clock: int | None = None
    clock_modulus: int = 1 << 32
    rssi: NDArray[np.float32] | None = None
    agc: float | None = None
    received: float = 0.0
    record: object = None


@dataclass
class CSIStatistics:
    """What became of the packets so far.

    Attributes
    ----------
    packets : int
        Datagrams, lines, records or messages that came.
    frames : int
        Frames handed out.
    lost : int
        Frames that the sender's count shows to be missing. Where a transmitter counts frames to others in the same
        count, or the sniffer filters some out, those are in it too; so are those dropped or malformed here. A frame
        that comes after its followers is taken off again; the gap in ``frame_index`` where it was missing stays.
    foreign : int
        Packets of other transmitters, kinds of frame or bandwidths.
    ignored : int
        Packets and lines that are about something else: headers, logs, other traffic.
    malformed : dict of str to int
        Packets that could not be used, by reason.
    dropped : int
        Packets dropped here or by this machine's network stack because they came faster than they were read.
    restarts : int
        Times the device's clock was set back, or another link was followed.
    """

    packets: int = 0
    frames: int = 0
    lost: int = 0
    foreign: int = 0
    ignored: int = 0
    malformed: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    restarts: int = 0

    @property
    def unusable(self) -> int:
        """Malformed packets of all reasons."""
        return sum(self.malformed.values())

    def refuse(self, message: str) -> None:
        """Count a packet as malformed; the reason is its message up to the first colon."""
        reason = message.partition(":")[0]
        if reason not in self.malformed and len(self.malformed) >= MAX_REASONS:
            reason = "other reasons"
        self.malformed[reason] = self.malformed.get(reason, 0) + 1

    def copy(self) -> CSIStatistics:
        """A copy that does not change any more."""
        return replace(self, malformed=dict(self.malformed))


Select = Callable[[Sequence[Packet]], Callable[[Packet], Packet]]
"""From the first packets of a link, how to take what is used from each: for example, the subcarriers of one band."""


class FrameAssembler:
    """Makes frames of packets.

    Parameters
    ----------
    statistics : CSIStatistics
        Counted up here.
    mac : str or None
        Follow this transmitter alone.
    settling : int or None
        Frames of the most frequent link after which it is followed; None looks 4096 packets ahead, which files can.
    select : callable or None
        What to take from each packet, see :data:`Select`; None takes all.
    tell : callable
        Told, in a line each, what the user should know: what is followed, what is left out.
    """

    def __init__(
        self,
        statistics: CSIStatistics,
        mac: str | None = None,
        settling: int | None = SETTLING_FRAMES,
        select: Select | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._statistics = statistics
        self._mac = mac
        self._settling = settling or _MOST_WAITING
        self._select = select or _all_of_it
        self._tell = tell
        self._links: Counter[Link] = Counter()
        self._waiting: list[Packet] = []
        self._waiting_parts: Counter[tuple[Link, int]] = Counter()
        self._followed: _Followed | None = None
        self._newest: Packet | None = None  # of the link that is followed
        self._strangers = 0  # since the last packet of the link that is followed
        self._order = _Order(statistics)

    @property
    def links(self) -> Counter[Link]:
        """Packets by link, of the first 64 links."""
        return self._links

    def add(self, packet: Packet) -> Iterator[CSIFrame]:
        """Take the next packet, and yield the frames that are complete with it."""
        if packet.link in self._links or len(self._links) < MAX_LINKS:
            self._links[packet.link] += 1
        if self._mac is not None and packet.link.mac != self._mac:
            self._statistics.foreign += 1
        elif self._followed is None:
            yield from self._wait(packet)
        elif packet.link == self._followed.link:
            self._newest, self._strangers = packet, 0
            yield from self._frames(self._followed, packet)
        elif self._strangers < SETTLING_FRAMES or self._is_patient(packet):
            self._strangers += 1
            self._statistics.foreign += 1
        else:
            self._unfollow(self._followed)
            yield from self._wait(packet)

    def finish(self) -> Iterator[CSIFrame]:
        """Yield what is left at the end of a file."""
        if self._waiting:
            yield from self._settle()
        if self._followed is not None:
            self._followed.give_up(self._statistics)

    def _wait(self, packet: Packet) -> Iterator[CSIFrame]:
        self._waiting.append(packet)
        self._waiting_parts[packet.link, packet.part] += 1
        enough = self._waiting_parts[packet.link, packet.part] >= self._settling
        if enough or len(self._waiting) >= _MOST_WAITING:
            yield from self._settle()

    def _settle(self) -> Iterator[CSIFrame]:
        waiting, self._waiting = self._waiting, []
        self._waiting_parts.clear()
        (link, count), *others = Counter(packet.link for packet in waiting).most_common()
        own = [packet for packet in waiting if packet.link == link]
        parts = _parts(own)
        # As many as a live stream has at this point, so that a file is taken for the same as its replay.
        take = self._select([packet for packet in own if packet.part == parts[0]][: SETTLING_FRAMES - 1])
        self._followed = _Followed(link, take(own[0]).link.device, parts, take)
        self._newest, self._strangers = own[-1], 0
        self._statistics.foreign += len(waiting) - count
        self._announce(self._followed, len(waiting) - count, others)
        for packet in own:
            yield from self._frames(self._followed, packet)

    def _announce(self, followed: _Followed, left_out: int, others: list[tuple[Link, int]]) -> None:
        link = followed.link
        self._tell(f"following {link}" + (f", as {followed.device}" if followed.device != link.device else ""))
        if others:
            named = ", ".join(f"{number} of {other}" for other, number in others[:3])
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            choice = "; choose one with --mac" if {other.mac for other, _ in others} - {link.mac} else ""
            self._tell(f"left out {left_out} packets: {named}{more}{choice}")

    def _is_patient(self, packet: Packet) -> bool:
        """Whether the link that is followed fell silent too short a time before a stranger's packet to be given up."""
        return self._newest is not None and abs(_step(self._newest, packet)) < _PATIENCE

    def _unfollow(self, followed: _Followed) -> None:
        self._tell(f"no more packets of {followed.link}, only others; starting anew")
        followed.give_up(self._statistics)
        self._followed = None
        self._settling = min(self._settling, SETTLING_FRAMES)
        self._statistics.restarts += 1

    def _frames(self, followed: _Followed, packet: Packet) -> Iterator[CSIFrame]:
        whole = followed.add(packet, self._statistics)
        frame = self._order.place(whole) if whole is not None else None
        if frame is not None:
            self._statistics.frames += 1
            yield frame


def _all_of_it(packets: Sequence[Packet]) -> Callable[[Packet], Packet]:
    return lambda packet: packet


def _parts(packets: Iterable[Packet]) -> list[int]:
    """Parts that a whole frame has: those that come at least half as often as the most frequent."""
    counts = Counter(packet.part for packet in packets)
    return sorted(part for part, count in counts.items() if 2 * count >= max(counts.values()))


class _Followed:
    """Collects the parts of one link's frames."""

    def __init__(self, link: Link, device: str, parts: list[int], take: Callable[[Packet], Packet]) -> None:
        self.link = link
        self.device = device
        self._wanted = parts
        self._take = take
        self._parts: dict[int, Packet] = {}

    def add(self, packet: Packet, statistics: CSIStatistics) -> Packet | None:
        """Take the next packet, and return the frame that is complete with it."""
        if packet.part not in self._wanted:
            statistics.refuse("unexpected core or stream")
            return None
        packet = self._take(packet)
        if len(self._wanted) == 1:
            return packet
        if self._parts and (packet.part in self._parts or packet.count != next(iter(self._parts.values())).count):
            self.give_up(statistics)
        self._parts[packet.part] = packet
        if len(self._parts) < len(self._wanted):
            return None
        whole = _joined([self._parts[part] for part in self._wanted], first=next(iter(self._parts.values())))
        self._parts = {}
        return whole

    def give_up(self, statistics: CSIStatistics) -> None:
        """Give up the frame whose parts did not all come."""
        if self._parts:
            statistics.refuse("incomplete frame: not all cores and streams of it came")
            self._parts = {}


def _joined(parts: list[Packet], first: Packet) -> Packet:
    rssi = None
    if all(part.rssi is not None for part in parts):
        rssi = np.concatenate([np.broadcast_to(part.rssi, len(part.csi)) for part in parts if part.rssi is not None])
    return replace(
        first,
        csi=np.concatenate([part.csi for part in parts]),
        rssi=rssi,
        received=max(part.received for part in parts),
    )


class _Order:
    """Gives frames their place in the sender's count and in time; both only ever go up."""

    def __init__(self, statistics: CSIStatistics) -> None:
        self._statistics = statistics
        self._last: Packet | None = None
        self._index = 0
        self._seconds = 0.0
        self._missing: deque[int] = deque(maxlen=_REORDERED)  # numbers that were counted as lost lately

    def place(self, packet: Packet) -> CSIFrame | None:
        """Return the packet as a frame; None if it is one that was there before, or comes too late."""
        seconds = _seconds(packet)
        index = packet.count or 0
        if self._last is not None:
            before = self._statistics.restarts
            passed = self._passed(self._last, packet)
            if passed is None:
                return None
            seconds = self._seconds + passed
            began_anew = self._statistics.restarts > before
            index = self._index + 1 + (0 if began_anew else self._skipped(self._last, packet))
            if began_anew:
                self._missing.clear()
            if self._is_found(self._last, packet):
                packet = replace(packet, count=self._last.count)  # the next one follows those that overtook this one
        self._last, self._index, self._seconds = packet, index, seconds
        return CSIFrame(
            csi=packet.csi,
            subcarriers=packet.subcarriers,
            timestamp=seconds,
            frame_index=index,
            device=packet.link.device,
            rssi=packet.rssi,
            agc=packet.agc,
            received=packet.received,
        )

    def _passed(self, last: Packet, packet: Packet) -> float | None:
        """Seconds since the frame before; None if this one is to be left out."""
        changed = packet.link != last.link
        if changed and (last.clock is not None or packet.clock is not None):
            return RESTART_GAP
        step = _step(last, packet)
        if _is_repeated(last, packet):
            self._statistics.refuse("repeated: the frame had come before")
            return None
        if step <= -_LATE or (step < 0 and changed) or _began_anew(last, packet, step):
            self._statistics.restarts += 1
            return RESTART_GAP
        if step < 0:
            self._statistics.refuse("late: a younger frame had come before")
            return None
        return max(step, _SHORTEST_STEP)

    def _skipped(self, last: Packet, packet: Packet) -> int:
        """Count the frames that are missing between two by the sender's count."""
        if last.count is None or packet.count is None or last.link != packet.link:
            self._missing.clear()
            return 0
        jump = (packet.count - last.count) % packet.count_modulus
        if not 1 < jump <= min(packet.count_modulus // _LARGEST_LOSS, _MOST_LOST):
            return 0
        newest = range(max(1, jump - _REORDERED), jump)
        self._missing.extend((last.count + number) % packet.count_modulus for number in newest)
        self._statistics.lost += jump - 1
        return jump - 1

    def _is_found(self, last: Packet, packet: Packet) -> bool:
        """Whether a frame was counted as lost a moment ago, and only comes after its followers; take it off again."""
        if last.count is None or packet.count is None or packet.count not in self._missing:
            return False
        if not 0 < (last.count - packet.count) % packet.count_modulus <= _REORDERED:
            return False
        self._missing.remove(packet.count)
        self._statistics.lost -= 1
        return True


def _seconds(packet: Packet) -> float:
    return packet.time if packet.clock is None else packet.clock * 1e-6


def _is_repeated(last: Packet, packet: Packet) -> bool:
    """Whether a packet came twice. A frame that was sent again has the same number too, but is measured anew."""
    if packet.count != last.count or packet.link != last.link:
        return False
    if packet.clock is not None:
        return packet.clock == last.clock
    return packet.count is not None and np.array_equal(packet.csi, last.csi)


def _began_anew(last: Packet, packet: Packet, step: float) -> bool:
    """Whether a step forward of a device's clock is its reset: past half of what it counts, that looks the same."""
    if last.clock is None or packet.clock is None or step <= RESTART_GAP:
        return False
    if packet.time > 0 and last.time > 0 and step > packet.time - last.time + _SLOW:
        return True  # it came much sooner than its clock says
    if last.count is None or packet.count is None:
        return False
    return (packet.count - last.count) % packet.count_modulus > packet.count_modulus // 2


def _step(last: Packet, packet: Packet) -> float:
    """Seconds from one packet to the next, over at most one wrap of the device's clock."""
    if last.clock is None or packet.clock is None or last.link.receiver != packet.link.receiver:
        return packet.time - last.time  # two devices' clocks have nothing to do with each other
    ticks = (packet.clock - last.clock) % packet.clock_modulus
    return (ticks - packet.clock_modulus if ticks > packet.clock_modulus // 2 else ticks) * 1e-6
