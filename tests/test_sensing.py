# SPDX-License-Identifier: Apache-2.0
"""A stream of frames through a real model and out of all outputs; what the command line adds is in test_cli_sense."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from rfvit_rt.activity import UNKNOWN, ActivitySettings
from rfvit_rt.contract import ModelFile
from rfvit_rt.datatypes import Activity, CSIFrame
from rfvit_rt.engines import Engine, load_engine
from rfvit_rt.errors import OutputError, SpecMismatch, StreamError
from rfvit_rt.outputs import Outputs
from rfvit_rt.running import Stop
from rfvit_rt.sensing import Arrivals, Sensing, SensingSettings
from rfvit_rt.sources.csi_frames import CSIStatistics
from rfvit_rt.wire.results import Result, SensingStatus

from .csi_streams import RATE, SPEC, WINDOW, channels, frames, make_model

HOP = 0.4


class Kept:
    """A sink that keeps what it is given, and fails when it is full."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.results: list[Result] = []
        self._most = most

    def write(self, result: Result) -> None:
        if len(self.results) == self._most:
            raise OutputError("the disk is full")
        self.results.append(result)

    @property
    def activities(self) -> list[Activity]:
        return [result for result in self.results if isinstance(result, Activity)]

    @property
    def statuses(self) -> list[SensingStatus]:
        return [result for result in self.results if isinstance(result, SensingStatus)]


@dataclasses.dataclass
class Made:
    """A source of frames that the test made."""

    frames: Iterable[CSIFrame]
    live: bool = False
    replayed: bool = False
    statistics: CSIStatistics = dataclasses.field(default_factory=CSIStatistics)
    name: str = "a test"
    notices: list[str] = dataclasses.field(default_factory=lambda: ["following what was made for tests"])

    def take_notices(self) -> list[str]:
        taken, self.notices = self.notices, []
        return taken

    def __iter__(self) -> Iterator[CSIFrame]:
        return iter(self.frames)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return make_model(tmp_path_factory.mktemp("model") / "motion.onnx")


@pytest.fixture(scope="module")
def engine(model: ModelFile) -> Iterator[Engine]:
    with load_engine(model, threads=1) as engine:
        yield engine


@pytest.fixture
def sensing(model: ModelFile, engine: Engine) -> Callable[..., Sensing]:
    """Return a function that makes a run from a source, or frames, to a sink."""

    def make(
        source: Made | Iterable[CSIFrame], sink: Kept, settings: SensingSettings | None = None, **outputs: Any
    ) -> Sensing:
        to = Outputs(Console(file=io.StringIO(), width=200), **outputs)
        source = source if isinstance(source, Made) else Made(source)
        return Sensing(source, engine, model, settings or SensingSettings(HOP), to, [sink], Stop())

    return make


def run(sensing: Sensing) -> str:
    """Let a run go to its end, and return what it said."""
    sensing.process()
    sensing.finish()
    output = sensing._outputs.console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_a_person_who_walks_and_stops_is_told(sensing: Callable[..., Sensing], tmp_path: Path) -> None:
    """6 s still, 6 s moving, 6 s still."""
    sink = Kept()
    one = sensing(frames(channels([False, True, False], 6.0), start=1000.0), sink, png=tmp_path / "a.png")
    said = run(one)
    assert one.failures == []
    assert [activity.label for activity in sink.activities] == ["still", "moving", "still"]
    for activity, expected in zip(sink.activities, (0, 6, 12), strict=True):
        assert activity.time_start == pytest.approx(expected, abs=WINDOW / 2 + HOP)
        assert activity.frame_start == pytest.approx(activity.time_start * RATE, abs=2)
        assert activity.frame_rate == pytest.approx(RATE, rel=0.03)
        assert activity.lost == 0
    assert len(sink.statuses) == 1 + int((18 - 1 / RATE - WINDOW) / HOP) + 1  # one a window, and one at the end
    assert sink.statuses[-1].frames == 18 * RATE
    assert {status.recorded for status in sink.statuses} == {True}
    assert {status.result_age for status in sink.statuses} == {None}
    for words in (
        "What happened when",
        "RECORDED, not live",
        "Frames: 900 in 17.98 s, 50.0 a second",
        "Lost frames: 0",
    ):
        assert words in said
    assert said.count("frames/s") == len(sink.statuses) - 1  # piped: a plain line a window
    assert imread(tmp_path / "a.png").shape == (900, 1600, 4)


def test_live_results_have_an_age(sensing: Callable[..., Sensing]) -> None:
    sink = Kept()
    stream = (dataclasses.replace(frame, received=1e-9) for frame in frames(channels([True], 4.0)))
    said = run(sensing(Made(stream, live=True), sink))
    assert all(status.result_age is not None and status.result_age > 0 for status in sink.statuses)
    assert "Result age: p50" in said
    assert "RECORDED" not in said


@pytest.mark.parametrize(("device", "replayed"), [("nexmon (replay)", False), ("nexmon", True)])
def test_a_replay_that_says_so_is_recorded(
    sensing: Callable[..., Sensing], tmp_path: Path, device: str, replayed: bool
) -> None:
    sink = Kept()
    stream = (dataclasses.replace(frame, device=device) for frame in frames(channels([True], 4.0)))
    one = sensing(Made(stream, live=True, replayed=replayed), sink, png=tmp_path / "a.png")
    said = run(one)
    assert {status.recorded for status in sink.statuses} == {True}
    assert said.count("RECORDED: the sender says that it replays a recording; nothing of this is live\n") == 1
    assert "Source: a test, RECORDED, not live\n" in said
    assert one._image is not None
    assert one._image.facts.count("RECORDED, not live") == 1


@pytest.mark.parametrize(
    ("devices", "is_warned"),
    [
        (["esp32 20 MHz"], True),
        (["made elsewhere"], False),
        ([], False),
        (None, False),
        ("esp32", False),
        ([1, {}], False),
    ],
)
def test_a_device_that_the_model_does_not_know_is_warned_of(
    model: ModelFile, engine: Engine, devices: object, is_warned: bool
) -> None:
    provenance = model.contract.provenance | {"devices": devices}
    changed = dataclasses.replace(model, contract=dataclasses.replace(model.contract, provenance=provenance))
    outputs = Outputs(Console(file=io.StringIO()))
    source = Made(frames(channels([True], 2.0)))
    one = Sensing(source, engine, changed, SensingSettings(HOP), outputs, [], Stop())
    assert ("WARNING: the model motion learnt from esp32 20 MHz; frames come from made" in run(one)) == is_warned


def test_frames_that_are_missing_are_counted_where_they_are_missing(sensing: Callable[..., Sensing]) -> None:
    sink, lost = Kept(), {101, 102, 350}
    stream = [frame for frame in frames(channels([False, True], 5.0)) if frame.frame_index not in lost]
    counts = CSIStatistics(lost=3, foreign=7, malformed={"short": 2})
    run(sensing(Made(stream, statistics=counts), sink))
    assert [(activity.label, activity.lost) for activity in sink.activities] == [("still", 2), ("moving", 1)]
    status = sink.statuses[-1]
    assert (status.frames, status.lost, status.foreign, status.malformed) == (497, 3, 7, 2)


def test_people_are_told_what_comes_up_as_soon_as_it_does(sensing: Callable[..., Sensing]) -> None:
    def telling() -> Iterator[CSIFrame]:
        for frame in frames(channels([True], 4.0)):
            source.notices.append(f"notice {frame.frame_index}.")
            yield frame

    source = Made(telling())
    said = run(sensing(source, Kept()))
    assert [said.count(f"notice {number}.\n") for number in range(200)] == [1] * 200
    assert said.index("notice 70.") < said.index("frames/s") < said.index("notice 90.")  # the first window has 80


def test_a_gap_ends_an_interval(sensing: Callable[..., Sensing]) -> None:
    sink = Kept()
    stream = [frame for frame in frames(channels([True], 12.0)) if not 250 <= frame.frame_index < 300]
    run(sensing(stream, sink))
    assert [activity.label for activity in sink.activities] == ["moving", "moving"]
    before, after = sink.activities
    assert before.time_end <= 250 / RATE
    assert after.time_start >= 300 / RATE


def test_a_threshold_that_is_never_met_gives_unknown(sensing: Callable[..., Sensing]) -> None:
    sink = Kept()
    settings = SensingSettings(HOP, ActivitySettings(threshold=1.0, hysteresis=0.0))
    run(sensing(frames(channels([False], 4.0)), sink, settings))
    assert {result.label for result in (*sink.activities, *sink.statuses)} == {UNKNOWN}


def test_a_duration_ends_the_run(sensing: Callable[..., Sensing]) -> None:
    sink = Kept()
    endless = (frame for seed in range(1000) for frame in frames(channels([True], 4.0, seed), start=4.0 * seed))
    counted = (dataclasses.replace(frame, frame_index=number) for number, frame in enumerate(endless))
    one = sensing(counted, sink, SensingSettings(HOP, duration=3.0))
    run(one)
    assert one.failures == []
    assert sink.statuses[-1].frames == 3 * RATE + 1


def test_a_source_that_fails_costs_nothing_that_came_before(sensing: Callable[..., Sensing], tmp_path: Path) -> None:
    def failing() -> Iterator[CSIFrame]:
        yield from frames(channels([True], 4.0))
        raise StreamError("nothing came for 10 s")

    sink = Kept()
    one = sensing(failing(), sink, png=tmp_path / "a.png")
    said = run(one)
    assert [str(error) for error in one.failures] == ["nothing came for 10 s"]
    assert [activity.label for activity in sink.activities] == ["moving"]
    assert "What happened when" in said
    assert (tmp_path / "a.png").exists()


def test_a_sink_that_fails_ends_the_run(sensing: Callable[..., Sensing]) -> None:
    sink = Kept(most=2)
    one = sensing(frames(channels([True], 8.0)), sink)
    run(one)
    assert [str(error) for error in one.failures] == ["the disk is full"]
    assert one.stop.is_set()
    assert len(sink.results) == 2


def test_the_wish_to_stop_ends_it_with_what_there_is(sensing: Callable[..., Sensing]) -> None:
    def stopping() -> Iterator[CSIFrame]:
        for frame in frames(channels([True], 100.0)):
            if frame.frame_index == 200:
                one.stop.set()
            yield frame

    sink = Kept()
    one = sensing(stopping(), sink)
    run(one)
    assert one.failures == []
    assert [activity.label for activity in sink.activities] == ["moving"]
    assert sink.statuses[-1].frames == 200


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_too_few_frames_are_an_error(sensing: Callable[..., Sensing], seconds: float) -> None:
    sink = Kept()
    one = sensing(frames(channels([True], seconds)), sink)
    said = run(one)
    (failure,) = one.failures
    assert isinstance(failure, SpecMismatch)
    assert f"{round(seconds * RATE)} in {max(0, seconds - 1 / RATE):.1f} s" in str(failure)
    assert f"{WINDOW:g} s" in str(failure)
    assert sink.results == []
    assert "Frames: " in said


def test_a_rate_that_is_too_low_is_an_error(sensing: Callable[..., Sensing]) -> None:
    one = sensing(frames(channels([True], 10.0, rate=5), rate=5), Kept())
    run(one)
    assert "5.0 frames/s" in str(one.failures[0])
    assert f"{SPEC.min_frame_rate:g}" in str(one.failures[0])


def test_a_stream_that_falters_for_a_while_goes_on(sensing: Callable[..., Sensing]) -> None:
    def faltering() -> Iterator[CSIFrame]:
        for frame in frames(channels([True], 30.0)):
            if not 10 <= frame.timestamp < 20 or frame.frame_index % 10 == 0:  # frames that are not lost for good
                yield frame

    one = sensing(faltering(), sink := Kept())
    said = run(one)
    assert one.failures == []
    assert max(activity.time_end for activity in sink.activities) > 29
    (left_out,) = [int(line.split()[2]) for line in said.splitlines() if line.startswith("Left out: ")]
    assert 0 < left_out < 30 / WINDOW * 4


def test_an_answer_is_taken_back_where_none_follows(sensing: Callable[..., Sensing]) -> None:
    """Frames still come, but too rarely, or with a gap before every window is full."""
    kept = Kept()
    often, rare = (list(frames(channels([False], count * WINDOW))) for count in (6, 16))
    after = often[-1].timestamp + 0.1
    late = [
        dataclasses.replace(frame, timestamp=after + frame.timestamp, frame_index=10_000 + frame.frame_index)
        for frame in rare[:: round(RATE / SPEC.min_frame_rate * 2)]
    ]
    said = run(sensing(Made([*often, *late]), kept))
    assert kept.statuses[0].label != UNKNOWN
    silent = [status for status in kept.statuses if status.time > often[-1].timestamp + 2 * WINDOW]
    assert silent
    assert {(status.label, status.confidence) for status in silent} == {(UNKNOWN, 0.0)}
    assert 0 < silent[-1].frame_rate < SPEC.min_frame_rate
    assert "Left out: " in said


def test_arrivals_forget_what_is_over() -> None:
    arrivals = Arrivals()
    for index in (0, 1, 2, 5, 6, 9):
        arrivals.note(index)
    assert arrivals.among(1, 5).tolist() == [1, 2, 5]
    assert arrivals.among(0, 7).tolist() == [1, 2, 5, 6]
    assert np.issubdtype(arrivals.among(6, 9).dtype, np.integer)
