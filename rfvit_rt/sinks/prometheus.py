# SPDX-License-Identifier: Apache-2.0
"""How a run is doing, for Prometheus to scrape over HTTP, with the names and units that its conventions ask for.

``grafana.json`` beside this file is a dashboard of these metrics. They are

=================================== ===================================================================================
``rfvit_build_info``                the release, as label ``version``
``rfvit_engine_info``               what runs the model: labels ``engine``, ``description`` and ``precision``
``rfvit_model_info``                labels ``model``, ``task`` and ``sha256``
``rfvit_windows_total``             windows analysed
``rfvit_recorded``                  1 where samples or frames come from a recording, 0 where they are live
``process_*``                       processor time, memory and open files of this process

segmentation
``rfvit_samples_total``             samples read from the source
``rfvit_lost_samples_total``        samples that did not reach the model; label ``cause`` is ``transport`` (on the
                                    way), ``radio`` (in the radio), ``dropped`` (too fast for this machine) or
                                    ``unusable`` (before the sender said its sample rate)
``rfvit_stream_restarts_total``     times the sender began anew
``rfvit_simulated``                 1 where a stream says that no radio received it; a recording says it in its metadata
``rfvit_sample_rate_hertz``         sample rate of the newest window
``rfvit_frequency_hertz``           its centre frequency; missing where unknown
``rfvit_sample_age_seconds``        histogram: from the arrival of a window's last sample to its result
``rfvit_stage_seconds``             histogram by ``stage``: ``windowing``, ``spectrogram`` and ``inference``, each with
                                    the waiting for it, together are the sample age; ``results`` comes after it
``rfvit_annotations_total``         annotations by ``label``

sensing
``rfvit_csi_frames_total``          frames used
``rfvit_csi_lost_frames_total``     frames lost on the way
``rfvit_csi_dropped_packets_total`` packets too fast for this machine
``rfvit_csi_foreign_packets_total`` packets of other transmitters, kinds of frame or bandwidths
``rfvit_csi_malformed_packets_total`` packets that cannot be read
``rfvit_csi_restarts_total``        times the device's clock was set back, or another sender was followed
``rfvit_result_age_seconds``        histogram: from the arrival of a window's last frame to its result; live only
``rfvit_activities_total``          intervals of an activity that are over, by ``label``
=================================== ===================================================================================
"""

from __future__ import annotations

import ipaddress
import re
import socket
import socketserver
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from rfvit_rt import __version__
from rfvit_rt.datatypes import Activity, Annotation
from rfvit_rt.errors import OutputError
from rfvit_rt.figures import Figures, Histogram, SegmentationFigures, SensingFigures
from rfvit_rt.wire.results import Result

LOOPBACK = "127.0.0.1"
MAX_CLIENTS = 8  # at once; a scrape takes milliseconds
PATIENCE = 5.0  # seconds that a client may take to ask and to read the answer


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes
    ----------
    host : str
        Name or address of an interface.
    port : int
        TCP port; 0 takes a free one.
    """

    host: str
    port: int

    @property
    def url(self) -> str:
        """Where to scrape."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/metrics"

    @property
    def is_open(self) -> bool:
        """Whether others than this machine may reach it."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"


def parse_address(text: str) -> Address:
    """Read ``PORT``, which means this machine alone, or ``HOST:PORT``.

    Raises
    ------
    OutputError
        If it is neither.

    Examples
    --------
    >>> parse_address("9470").url
    'http://127.0.0.1:9470/metrics'
    >>> parse_address("[::]:9470")
    Address(host='::', port=9470)
    """
    found = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]/@]+):)?(\d{1,5})", text, re.ASCII)
    if not found or int(found[2]) > 65535:
        raise OutputError(f"--metrics is {text!r}; expected a port such as 9470, or HOST:PORT to be open to others")
    return Address((found[1] or LOOPBACK).strip("[]"), int(found[2]))


@dataclass(frozen=True)
class RunInfo:
    """What runs; fields as in the labels of the ``_info`` metrics."""

    engine: str
    description: str
    precision: str
    model: str
    task: str
    sha256: str


class PrometheusSink(Collector):
    """Answers scrapes while a run goes; counts annotations and activities by label, and asks the run for the rest.

    Parameters
    ----------
    address : Address
        Where to listen. There is no access control.
    info : RunInfo
        What runs.
    figures : callable
        Gives the run's figures of the moment; called by the server's threads.

    Raises
    ------
    OutputError
        If there is no such address, or the port is taken.
    """

    def __init__(self, address: Address, info: RunInfo, figures: Callable[[], Figures]) -> None:
        self._info = info
        self._figures = figures
        self._labels: Counter[str] = Counter()
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        self._server = _listen(address, registry)
        self.address = Address(address.host, self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="rfvit-metrics")
        self._thread.daemon = True
        self._thread.start()

    def write(self, result: Result) -> None:
        """Take one result."""
        if isinstance(result, Annotation | Activity):
            self._labels[result.label] += 1

    def collect(self) -> Iterator[Metric]:
        """Give all metrics as they are now."""
        info = self._info
        yield _information("build", "Release of rfvit-rt.", {"version": __version__})
        engine = {"engine": info.engine, "description": info.description, "precision": info.precision}
        yield _information("engine", "What runs the model.", engine)
        model = {"model": info.model, "task": info.task, "sha256": info.sha256}
        yield _information("model", "The model that runs.", model)
        figures = self._figures()
        yield CounterMetricFamily("rfvit_windows", "Windows analysed.", figures.windows)
        if figures.recorded is not None:
            yield GaugeMetricFamily("rfvit_recorded", "1 where nothing of it is live.", float(figures.recorded))
        labels = self._labels.copy()
        if isinstance(figures, SegmentationFigures):
            yield from _segmentation(figures)
            yield _counters("rfvit_annotations", "Annotations.", "label", labels)
        else:
            yield from _sensing(figures)
            yield _counters("rfvit_activities", "Intervals of an activity that are over.", "label", labels)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> PrometheusSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _segmentation(figures: SegmentationFigures) -> Iterator[Metric]:
    yield CounterMetricFamily("rfvit_samples", "Samples read from the source.", figures.samples)
    yield _counters("rfvit_lost_samples", "Samples that did not reach the model, by cause.", "cause", figures.lost)
    yield CounterMetricFamily("rfvit_stream_restarts", "Times the sender began anew.", figures.restarts)
    yield GaugeMetricFamily("rfvit_simulated", "1 where no radio received the stream.", float(figures.simulated))
    if figures.sample_rate is not None:
        yield GaugeMetricFamily("rfvit_sample_rate_hertz", "Sample rate of the newest window.", figures.sample_rate)
    if figures.frequency is not None:
        yield GaugeMetricFamily("rfvit_frequency_hertz", "Centre frequency of the newest window.", figures.frequency)
    age = HistogramMetricFamily("rfvit_sample_age_seconds", "From a window's last sample to its result.")
    yield _filled(age, {(): figures.sample_age})
    spent = "What a window spent in a stage, waiting included."
    stages = HistogramMetricFamily("rfvit_stage_seconds", spent, labels=["stage"])
    yield _filled(stages, {(stage,): histogram for stage, histogram in figures.stages.items()})


def _sensing(figures: SensingFigures) -> Iterator[Metric]:
    yield CounterMetricFamily("rfvit_csi_frames", "CSI frames used.", figures.frames)
    yield CounterMetricFamily("rfvit_csi_lost_frames", "CSI frames lost on the way.", figures.lost)
    yield CounterMetricFamily("rfvit_csi_dropped_packets", "Packets too fast for this machine.", figures.dropped)
    yield CounterMetricFamily("rfvit_csi_foreign_packets", "Packets of other transmitters or kinds.", figures.foreign)
    yield CounterMetricFamily("rfvit_csi_malformed_packets", "Packets that cannot be read.", figures.malformed)
    yield CounterMetricFamily("rfvit_csi_restarts", "Clocks set back, and changes of sender.", figures.restarts)
    age = HistogramMetricFamily("rfvit_result_age_seconds", "From a window's last frame to its result.")
    yield _filled(age, {(): figures.result_age})


def _information(what: str, text: str, labels: Mapping[str, str]) -> Metric:
    metric = GaugeMetricFamily(f"rfvit_{what}_info", text, labels=list(labels))
    metric.add_metric(list(labels.values()), 1)
    return metric


def _counters(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    metric = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        metric.add_metric([value], count)
    return metric


def _filled(metric: HistogramMetricFamily, histograms: Mapping[Any, Histogram]) -> Metric:
    """Add histograms, by the values of the metric's labels."""
    for values, histogram in histograms.items():
        bounds = [*map(str, histogram.bounds), "+Inf"]
        counts = accumulate(tuple(histogram.counts))
        metric.add_metric(
            values, [(bound, float(count)) for bound, count in zip(bounds, counts, strict=True)], histogram.total
        )
    return metric


class _Server(socketserver.ThreadingTCPServer):
    """Answers a few clients at once, and hangs up on those beyond; never looks up names, as HTTPServer does."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, family: socket.AddressFamily, place: tuple[str, int], handler: type[MetricsHandler]) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(MAX_CLIENTS)
        super().__init__(place, handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        assert isinstance(request, socket.socket)
        patience = threading.Timer(2 * PATIENCE, _hang_up, [request])  # a client may drip a byte now and then
        patience.daemon = True
        patience.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            patience.cancel()
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is not worth a traceback
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _hang_up(client: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        client.shutdown(socket.SHUT_RDWR)


def _listen(address: Address, registry: CollectorRegistry) -> _Server:
    class Handler(MetricsHandler):
        timeout = PATIENCE

    Handler.registry = registry
    try:
        family, _, _, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _Server(family, (str(place[0]), int(place[1])), Handler)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such name"
        raise OutputError(
            f"cannot serve metrics at {address.url}: {reason}; choose another port, or an address of this machine"
        ) from error
