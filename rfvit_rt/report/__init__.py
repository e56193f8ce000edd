# SPDX-License-Identifier: Apache-2.0
"""``rfvit report``: a recording segmented, and everything there is to say about it in one HTML file."""

from __future__ import annotations

from pathlib import Path

from rfvit_rt.errors import OutputError
from rfvit_rt.outputs import Outputs
from rfvit_rt.report.gathering import Gathered
from rfvit_rt.report.page import render
from rfvit_rt.run import Run
from rfvit_rt.running import Options
from rfvit_rt.session import segmenting
from rfvit_rt.sinks.files import check_output, replace_file
from rfvit_rt.sinks.sigmf import default_output
from rfvit_rt.sources.recording import META_SUFFIX, Recording, open_recording

SUFFIXES = (".html", ".htm")


def report_recording(path: Path, output: Path | None, options: Options, outputs: Outputs) -> None:
    """Segment a recording as it lies on disk, and write a report.

    Memory stays the same however long the recording is: the picture and the plot get coarser, and of the annotations
    only the first are listed.

    Parameters
    ----------
    path : Path
        The recording.
    output : Path or None
        The file to write; None is ``<name>.rfvit.html`` beside the recording.
    options : Options
    outputs : Outputs
        What else to write.

    Raises
    ------
    RfvitError
        If the recording, the model or an output cannot be used; what was found until then is in the report, which says
        so.
    SystemExit
        After Ctrl-C or SIGTERM, with everything so far in the report.
    """
    recording = open_recording(path)
    target = output or _beside(recording)
    if target.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{target} does not end in .html, by which browsers know a page; add that")
    check_output(target, outputs.overwrite)
    inputs = (recording.meta_path, recording.data_path)
    name = recording.meta_path.name
    with segmenting(name, options, outputs, recording.sample_rate, inputs, [target]) as run:
        gathered = Gathered(run.model, recording.sample_start, recording.sample_rate)
        run.add(gathered)
        run.process(recording.blocks(), recording.sample_count, keep=False)
        if run.analysed:
            _write(recording, run, gathered, target, outputs)


def _beside(recording: Recording) -> Path:
    annotated = default_output(recording)
    return annotated.with_name(annotated.name.removesuffix(META_SUFFIX) + ".html")


def _write(recording: Recording, run: Run, gathered: Gathered, target: Path, outputs: Outputs) -> None:
    try:
        check_output(target, outputs.overwrite)  # once more: it may have come up during the run
        replace_file(target, render(recording, run, gathered))
        outputs.console.print(f"Report: {target}", soft_wrap=True)
    except OSError as error:
        run.failures.append(OutputError(f"cannot write {target}: {error.strerror}"))
    except OutputError as error:  # the other outputs are still to be written
        run.failures.append(error)
