# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rfvit_rt.datatypes import Annotation, Emission
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.jsonl import JsonLinesSink
from rfvit_rt.wire.results import decode

RESULTS = (
    Annotation("LTE", 1234, 5678, 806e6, 816e6, 0.97, 61.44e6, 811e6),
    Emission("LTE", 806e6, 816e6, 0, 10**9, 12, 0.5, 0.9),
)


def test_every_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with JsonLinesSink(path) as sink:
        for count, result in enumerate(RESULTS, start=1):
            sink.write(result)
            assert len(path.read_bytes().split(b"\n")) == count + 1
    assert [decode(line) for line in path.read_bytes().splitlines()] == list(RESULTS)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("precious\n")
    with pytest.raises(OutputError, match="exists; name another file or give --overwrite"):
        JsonLinesSink(path)
    assert path.read_text() == "precious\n"
    with JsonLinesSink(path, overwrite=True) as sink:
        assert path.read_text() == "precious\n"  # until there is something to replace it
        sink.write(RESULTS[0])
    assert decode(path.read_bytes().strip()) == RESULTS[0]


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        JsonLinesSink(tmp_path / "missing" / "results.jsonl")
    with pytest.raises(OutputError, match="is a folder"):
        JsonLinesSink(tmp_path, overwrite=True)


def test_no_result_no_file(tmp_path: Path) -> None:
    with JsonLinesSink(tmp_path / "results.jsonl"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with JsonLinesSink(path) as sink:
        path.write_text("precious\n")
        with pytest.raises(OutputError, match="exists"):
            sink.write(RESULTS[0])
    assert path.read_text() == "precious\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_reported() -> None:
    sink = JsonLinesSink("/dev/full")  # a device has nothing to overwrite
    with pytest.raises(OutputError, match="No space left"):
        sink.write(RESULTS[0])
    with pytest.raises(OutputError, match="No space left"):
        sink.close()


def test_standard_output_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLinesSink("-") as sink:
        sink.write(RESULTS[0])
    print("still open")
    line, after = capsys.readouterr().out.splitlines()
    assert (decode(line.encode()), after) == (RESULTS[0], "still open")


READER_LEAVES = """
from rfvit_rt.datatypes import Emission
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.jsonl import JsonLinesSink
import sys

with JsonLinesSink("-") as sink:
    sink.write(Emission("LTE", 0.0, 1.0, 0, 1, 1, 1.0, 1.0))
    sys.stdin.read()  # until the reader has gone
    try:
        sink.write(Emission("LTE", 0.0, 1.0, 0, 1, 1, 1.0, 1.0))
    except OutputError as error:
        sys.exit(str(error))
"""


def test_a_reader_that_leaves_costs_one_line_of_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", READER_LEAVES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        assert decode(child.stdout.readline().strip().encode()).burst_count == 1
        child.stdout.close()
        child.stdin.close()
        errors = child.stderr.read().splitlines()
    assert errors == ["nobody reads standard output any more; the results after that are not written"]
    assert child.returncode == 1
