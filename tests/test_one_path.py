# SPDX-License-Identifier: Apache-2.0
"""A recording read from disk and the same recording through GNU Radio and ZeroMQ give identical annotations."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigmf

from rfvit_rt.sinks.sigmf import write_recording
from rfvit_rt.sources.recording import open_recording

EXAMPLE = Path(__file__).parent.parent / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"


def rfvit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from rfvit_rt.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def annotations(meta: Path) -> list[dict[str, Any]]:
    return [a for a in json.loads(meta.read_text())["annotations"] if "rfvit:model" in a]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    for suffix in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(EXAMPLE.with_suffix(suffix), tmp_path)
    return tmp_path / EXAMPLE.name


def check_same(recording: Path, folder: Path, speed: str) -> list[dict[str, Any]]:
    direct, replayed = folder / "direct.sigmf-meta", folder / "replayed.sigmf-meta"
    for arguments in (["segment", recording, "--output", direct], ["replay", recording, "--output", replayed]):
        done = rfvit(*arguments, *(["--speed", speed] if arguments[0] == "replay" else []))
        assert done.returncode == 0, done.stderr
        assert "Lost samples: 0 " in done.stdout
    assert annotations(direct) == annotations(replayed)
    sigmf.fromfile(replayed).validate()
    return annotations(direct)


@pytest.mark.usefixtures("gnuradio_python")
@pytest.mark.parametrize("speed", ["1", "0"])
def test_direct_and_replayed_annotations_are_identical(example: Path, tmp_path: Path, speed: str) -> None:
    found = check_same(example, tmp_path, speed)
    assert {annotation["core:label"] for annotation in found} == {"LTE", "NR"}


@pytest.mark.usefixtures("gnuradio_python")
def test_captures_at_other_frequencies_stay_apart(example: Path, tmp_path: Path) -> None:
    """Retuned in mid-recording: both paths start anew there, and no annotation reaches across."""
    retuned = json.loads(example.read_text())
    middle = 1_300_123
    retuned["captures"].append({"core:sample_start": middle, "core:frequency": 2.5e9})
    retuned["captures"].append({"core:sample_start": 2_200_001})  # centre frequency not known from here on
    retuned["annotations"] = []
    example.write_text(json.dumps(retuned))
    found = check_same(example, tmp_path, "0")
    bands = {2.14e9: (0, middle), 2.5e9: (middle, 2_200_001), 0.0: (2_200_001, 3_000_000)}
    for centre, (start, end) in bands.items():
        inside = [a for a in found if abs(a["core:freq_lower_edge"] - centre) <= 10e6]
        assert inside
        for annotation in inside:
            assert start <= annotation["core:sample_start"]
            assert annotation["core:sample_start"] + annotation["core:sample_count"] <= end


@pytest.mark.usefixtures("gnuradio_python")
def test_a_big_endian_recording_at_an_odd_rate(tmp_path: Path) -> None:
    samples = np.concatenate([block.samples for block in open_recording(EXAMPLE).blocks()])[:700_001]
    recording = write_recording(tmp_path / "odd", samples, 17.77e6, None, datatype="ci16_be")
    check_same(recording, tmp_path, "0")
