# SPDX-License-Identifier: Apache-2.0
"""Annotations of a stream that nobody records: SigMF metadata without samples (``core:metadata_only``).

The specification (1.2.6) has this for metadata that is distributed without its dataset. Positions count the samples of
the stream, as a recording of it would; the captures say where it was tuned to what, and when.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sigmf

from rfvit_rt.datatypes import Annotation, IQBlock
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.files import check_output, replace_file
from rfvit_rt.sinks.sigmf import EXTENSION, GENERATOR, describe_annotation, serialise
from rfvit_rt.sources.recording import DATA_SUFFIX, META_SUFFIX
from rfvit_rt.wire.results import Result

MOST_ANNOTATIONS = 1_000_000
MOST_CAPTURES = 100_000


class StreamAnnotations:
    """Gathers what is found in a stream, and writes it as one file when closed, complete or not at all.

    Parameters
    ----------
    path : Path
        The ``.sigmf-meta`` file.
    source : str
        Where the samples come from, such as the radio.
    description : str
        For people; says so where the samples are simulated.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """

    def __init__(self, path: Path, source: str, description: str, overwrite: bool = False) -> None:
        self.path = path
        self._source = source
        self.description = description
        self._overwrite = overwrite
        self._captures: list[dict[str, Any]] = []
        self._annotations: list[Annotation] = []
        self._sample_rate = 0.0
        self._sample_end = 0
        self._frequency: float | None = None
        check_stream_output(path, overwrite)

    def observed(self, blocks: Iterable[IQBlock]) -> Iterator[IQBlock]:
        """Pass blocks on, and note where they were tuned to what.

        Raises
        ------
        OutputError
            Where the stream becomes one that a single SigMF file cannot describe.
        """
        for block in blocks:
            self._note(block)
            yield block

    def write(self, result: Result) -> None:
        """Take up an annotation; other results have no place in SigMF.

        Raises
        ------
        OutputError
            If there are more than memory should hold.
        """
        if not isinstance(result, Annotation):
            return
        if len(self._annotations) == MOST_ANNOTATIONS:
            raise OutputError(
                f"{self.path} holds {MOST_ANNOTATIONS} annotations and takes no more; write those of an endless "
                "stream to --jsonl"
            )
        self._annotations.append(result)

    def close(self, model_name: str, model_hash: str) -> None:
        """Write the file.

        Parameters
        ----------
        model_name, model_hash : str
            What found the annotations: name, and digest of the model file in hex.

        Raises
        ------
        OutputError
            If that fails.
        """
        document = self._document(f"{model_name}@{model_hash[:12]}")
        try:
            check_stream_output(self.path, self._overwrite)
            replace_file(self.path, serialise(document, self.path))
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _note(self, block: IQBlock) -> None:
        if not self._captures:
            self._sample_rate = block.sample_rate
        elif block.sample_start < self._sample_end:
            raise OutputError(
                f"the sender was started again and counts from {block.sample_start}; {self.path} describes what came "
                "before: start again with another file"
            )
        elif block.sample_rate != self._sample_rate:
            raise OutputError(
                f"the sample rate became {block.sample_rate:g} Hz at sample {block.sample_start}; {self.path} can hold "
                f"one, {self._sample_rate:g} Hz: start again with another file"
            )
        self._sample_end = block.sample_end
        if self._captures and block.frequency == self._frequency:
            return
        if len(self._captures) == MOST_CAPTURES:
            raise OutputError(f"{self.path} holds {MOST_CAPTURES} retunes and takes no more; end the sweep sooner")
        self._frequency = block.frequency
        capture: dict[str, Any] = {"core:sample_start": block.sample_start, "core:datetime": _time_of(block)}
        if block.frequency is not None:
            capture["core:frequency"] = block.frequency
        self._captures.append(capture)

    def _document(self, model: str) -> dict[str, Any]:
        found = sorted(self._annotations, key=lambda annotation: annotation.sample_start)
        return {
            "global": {
                "core:datatype": "cf32_le",
                "core:sample_rate": self._sample_rate,
                "core:version": sigmf.__specification__,
                "core:metadata_only": True,
                "core:hw": self._source,
                "core:description": self.description,
                "core:recorder": GENERATOR,
                "core:extensions": [EXTENSION],
            },
            "captures": self._captures,
            "annotations": [describe_annotation(item, item.sample_end) | {"rfvit:model": model} for item in found],
        }


def check_stream_output(path: Path, overwrite: bool = False) -> None:
    """Check that :class:`StreamAnnotations` can write there, before the work.

    Raises
    ------
    OutputError
        As :func:`check_output`, and if there are samples beside it that it would seem to describe.
    """
    if not path.name.endswith(META_SUFFIX):
        raise OutputError(f"{path} does not end in {META_SUFFIX}, by which SigMF readers know it; add that")
    check_output(path, overwrite)
    data = path.with_suffix(DATA_SUFFIX)
    if data.exists() or data.is_symlink():
        raise OutputError(f"{data} exists, and {path.name} would seem to describe it; name another output")


def _time_of(block: IQBlock) -> str:
    """When the first sample was taken, by this machine's clock: when it arrived, less the block's own length."""
    age = time.monotonic() - block.received + len(block.samples) / block.sample_rate
    moment = datetime.fromtimestamp(time.time() - age, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
