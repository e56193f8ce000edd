# SPDX-License-Identifier: Apache-2.0
"""Metrics as Prometheus gets them: over HTTP, and read by its own parser."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from rfvit_rt import __version__
from rfvit_rt.datatypes import Activity, Annotation, Emission
from rfvit_rt.errors import OutputError
from rfvit_rt.figures import Histogram, SegmentationFigures, SensingFigures
from rfvit_rt.sinks import prometheus
from rfvit_rt.sinks.prometheus import MAX_CLIENTS, Address, PrometheusSink, RunInfo, parse_address

INFO = RunInfo("openvino", 'OpenVINO on "this" CPU\\', "f32", "spectrum-small", "segmentation", "ab" * 32)
LTE = Annotation("LTE", 0, 1000, 806e6, 816e6, 0.9, 20e6, 811e6)
FREE = Address("127.0.0.1", 0)


def histogram(*durations: float) -> Histogram:
    made = Histogram()
    for duration in durations:
        made.observe(duration)
    return made


SEGMENTATION = SegmentationFigures(
    samples=3_000_000,
    windows=4,
    lost={"transport": 1, "radio": 2, "dropped": 3, "unusable": 4},
    restarts=5,
    recorded=False,
    simulated=True,
    sample_rate=20e6,
    frequency=811e6,
    sample_age=histogram(0.04, 0.05, 0.06, 99.0),
    stages={"windowing": histogram(0.01), "inference": histogram(0.02)},
)
SENSING = SensingFigures(100, 7, 1, 2, 3, 4, 5, True, histogram(0.2))


def scrape(sink: PrometheusSink, accept: str = "text/plain") -> str:
    request = urllib.request.Request(sink.address.url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode("utf-8"))


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.fixture(params=[SEGMENTATION, SENSING], ids=["segmentation", "sensing"])
def any_sink(request: pytest.FixtureRequest) -> Iterator[PrometheusSink]:
    with PrometheusSink(FREE, INFO, lambda: request.param) as sink:
        yield sink


def test_figures_of_segmentation_arrive() -> None:
    with PrometheusSink(FREE, INFO, lambda: SEGMENTATION) as sink:
        for result in (LTE, LTE, replace(LTE, label="NR"), Emission("LTE", 806e6, 816e6, 0, 9, 1, 1.0, 0.9)):
            sink.write(result)
        found = samples(scrape(sink))
    assert value(found, "rfvit_samples_total") == 3_000_000
    assert value(found, "rfvit_windows_total") == 4
    assert value(found, "rfvit_stream_restarts_total") == 5
    assert value(found, "rfvit_recorded") == 0
    assert value(found, "rfvit_simulated") == 1
    assert value(found, "rfvit_sample_rate_hertz") == 20e6
    assert value(found, "rfvit_frequency_hertz") == 811e6
    for cause, lost in SEGMENTATION.lost.items():
        assert value(found, "rfvit_lost_samples_total", cause=cause) == lost
    assert value(found, "rfvit_annotations_total", label="LTE") == 2
    assert value(found, "rfvit_annotations_total", label="NR") == 1
    assert value(found, "rfvit_build_info", version=__version__) == 1
    assert value(found, "rfvit_model_info", model="spectrum-small", task="segmentation", sha256="ab" * 32) == 1
    engine = {"engine": "openvino", "description": INFO.description, "precision": "f32"}
    assert value(found, "rfvit_engine_info", **engine) == 1
    assert value(found, "process_cpu_seconds_total") > 0
    assert not [name for name, _ in found if "csi" in name or "activit" in name]


def test_figures_of_sensing_arrive() -> None:
    with PrometheusSink(FREE, INFO, lambda: SENSING) as sink:
        sink.write(Activity("walk", 1.5, 4.25, 150, 275, 0.93, 99.6, 1))
        found = samples(scrape(sink))
    expected = {"csi_frames": 100, "windows": 7, "csi_lost_frames": 1, "csi_dropped_packets": 2}
    expected |= {"csi_foreign_packets": 3, "csi_malformed_packets": 4, "csi_restarts": 5}
    for name, count in expected.items():
        assert value(found, f"rfvit_{name}_total") == count
    assert value(found, "rfvit_recorded") == 1
    assert value(found, "rfvit_activities_total", label="walk") == 1
    assert value(found, "rfvit_result_age_seconds_count") == 1
    assert value(found, "rfvit_result_age_seconds_sum") == pytest.approx(0.2)
    assert not [name for name, _ in found if "sample" in name or "annotation" in name]


def test_histograms_are_cumulative_and_bounds_belong_to_their_buckets() -> None:
    with PrometheusSink(FREE, INFO, lambda: SEGMENTATION) as sink:
        found = samples(scrape(sink))
    name = "rfvit_sample_age_seconds"
    assert value(found, f"{name}_bucket", le="0.025") == 0
    assert value(found, f"{name}_bucket", le="0.05") == 2  # 50 ms are not more than 50 ms
    assert value(found, f"{name}_bucket", le="0.075") == 3
    assert value(found, f"{name}_bucket", le="60.0") == 3
    assert value(found, f"{name}_bucket", le="+Inf") == value(found, f"{name}_count") == 4
    assert value(found, f"{name}_sum") == pytest.approx(99.15)
    assert value(found, "rfvit_stage_seconds_sum", stage="inference") == pytest.approx(0.02)


def test_it_is_openmetrics_too(any_sink: PrometheusSink) -> None:
    """That parser is a strict one: names, suffixes, types and order."""
    text = scrape(any_sink, "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    names = {family.name for family in openmetrics_families(text)}
    assert {"rfvit_windows", "rfvit_build_info"} <= names


def test_names_follow_the_conventions(any_sink: PrometheusSink) -> None:
    """As prometheus.io/docs/practices/naming has them: _total for counters, base units, _info for facts."""
    for family in text_string_to_metric_families(scrape(any_sink)):
        assert family.documentation
        if not family.name.startswith("rfvit_"):
            continue
        assert re.fullmatch(r"rfvit(_[a-z]+)+", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert family.name.endswith(("_info", "_seconds", "_hertz", "_recorded", "_simulated")), family.name


def test_what_is_unknown_is_missing() -> None:
    with PrometheusSink(FREE, INFO, lambda: replace(SEGMENTATION, sample_rate=None, frequency=None)) as sink:
        found = {name for name, _ in samples(scrape(sink))}
    assert not found & {"rfvit_sample_rate_hertz", "rfvit_frequency_hertz"}


def test_hostile_labels_stay_text() -> None:
    hostile = 'a"} 1\n# TYPE evil counter\nevil 1\\'
    with PrometheusSink(FREE, INFO, lambda: SEGMENTATION) as sink:
        sink.write(replace(LTE, label=hostile))
        found = samples(scrape(sink))
    assert value(found, "rfvit_annotations_total", label=hostile) == 1
    assert not [name for name, _ in found if "evil" in name]


def test_two_runs_have_nothing_in_common() -> None:
    with (
        PrometheusSink(FREE, INFO, lambda: SEGMENTATION) as one,
        PrometheusSink(FREE, INFO, lambda: replace(SEGMENTATION, windows=9)) as other,
    ):
        one.write(LTE)
        assert value(samples(scrape(one)), "rfvit_windows_total") == 4
        found = samples(scrape(other))
    assert value(found, "rfvit_windows_total") == 9
    assert not [name for name, _ in found if "annotations" in name]


def test_a_port_in_use_is_told() -> None:
    with PrometheusSink(FREE, INFO, lambda: SEGMENTATION) as sink:
        with pytest.raises(OutputError, match=rf":{sink.address.port}/metrics: .*in use.*another port"):
            PrometheusSink(sink.address, INFO, lambda: SEGMENTATION)
        scrape(sink)  # the first one still answers
    with pytest.raises(OutputError, match="address of this machine"):
        PrometheusSink(Address("192.0.2.1", 0), INFO, lambda: SEGMENTATION)  # kept for documentation: RFC 5737


def test_a_closed_port_is_free_again() -> None:
    with PrometheusSink(FREE, INFO, lambda: SEGMENTATION) as sink:
        scrape(sink)
    with PrometheusSink(sink.address, INFO, lambda: SEGMENTATION) as again:
        scrape(again)


def test_clients_that_hang_are_limited_and_those_that_leave_are_forgotten() -> None:
    with PrometheusSink(FREE, INFO, lambda: SEGMENTATION) as sink:
        place = ("127.0.0.1", sink.address.port)
        hanging = [socket.create_connection(place) for _ in range(MAX_CLIENTS)]
        one_more = socket.create_connection(place, timeout=30)
        assert one_more.recv(1) == b""  # hung up
        for client in (*hanging, one_more):
            client.close()
        while True:  # those who left make room, soon
            try:
                assert "rfvit_windows_total" in scrape(sink)
                break
            except OSError:
                continue


def test_a_client_that_drips_bytes_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "PATIENCE", 0.5)  # between two bytes, and twice that in all

    def drip(client: socket.socket) -> None:
        while True:
            client.send(b"G")
            time.sleep(0.1)

    with (
        PrometheusSink(FREE, INFO, lambda: SEGMENTATION) as sink,
        socket.create_connection(("127.0.0.1", sink.address.port), timeout=30) as client,
        pytest.raises(OSError, match=r"reset|[Bb]roken pipe"),
    ):
        drip(client)


@pytest.mark.parametrize("text", ["", "x", "70000", ":9470", "a b:1", "http://x:1", "::1:9470", "1.2.3.4:", "٣:٣"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(OutputError, match="expected a port"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "url", "is_open"),
    [
        ("9470", "http://127.0.0.1:9470/metrics", False),
        ("0.0.0.0:9470", "http://0.0.0.0:9470/metrics", True),
        ("[::1]:1", "http://[::1]:1/metrics", False),
        ("[::]:1", "http://[::]:1/metrics", True),
        ("localhost:1", "http://localhost:1/metrics", False),
        ("lab.example:1", "http://lab.example:1/metrics", True),
    ],
)
def test_addresses(text: str, url: str, is_open: bool) -> None:
    address = parse_address(text)
    assert (address.url, address.is_open) == (url, is_open)


# ---- the dashboard ----

KEYWORDS = {"by", "on", "sum", "rate", "increase", "group_left", "histogram_quantile", "label_values"}


def queries() -> Iterator[str]:
    dashboard = json.loads(files("rfvit_rt.sinks").joinpath("grafana.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query")


def exported() -> Iterator[Sample]:
    for figures in (SEGMENTATION, SENSING):
        with PrometheusSink(FREE, INFO, lambda figures=figures: figures) as sink:
            sink.write(LTE)
            for family in text_string_to_metric_families(scrape(sink)):
                yield from family.samples


def test_every_query_of_the_dashboard_asks_for_what_there_is() -> None:
    there = list(exported())
    names = {sample.name for sample in there}
    labels = {label for sample in there for label in sample.labels} | {"job", "instance"}  # Prometheus adds these two
    asked: set[str] = set()
    for query in queries():
        bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", query)  # without strings and ranges
        words = set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", bare)) - KEYWORDS
        metrics = {word for word in words if word.startswith(("rfvit_", "process_"))}
        assert metrics, query
        assert metrics <= names, query
        assert words - metrics <= labels, query
        asked |= metrics
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if name.startswith("rfvit_")}
    assert ours <= shown, "the dashboard leaves metrics out"


def test_panels_of_the_dashboard_lie_side_by_side() -> None:
    dashboard = json.loads(files("rfvit_rt.sinks").joinpath("grafana.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + column, place["y"] + row) for column in range(place["w"]) for row in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_documentation_names_every_metric() -> None:
    documented = set(re.findall(r"``(rfvit_[a-z_]+)``", prometheus.__doc__ or ""))
    ours = {sample.name for sample in exported() if sample.name.startswith("rfvit_")}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours} == documented
