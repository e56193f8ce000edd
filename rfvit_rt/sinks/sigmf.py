# SPDX-License-Identifier: Apache-2.0
"""SigMF metadata out: results as annotations beside the samples they describe, and whole generated recordings.

A result file is ``<name>.rfvit.sigmf-meta`` with a link ``<name>.rfvit.sigmf-data`` to the samples. The link makes it
a complete, conforming recording for every reader: sigmf-python also follows ``core:dataset``, but viewers such as
inspectrum look for a data file of the same base name only, and the specification (v1.2.6) keeps ``core:dataset`` for
non-conforming datasets. Those (header bytes, archives) get it, and so do folders where no links can be made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import sigmf
from numpy.typing import NDArray

from rfvit_rt import __version__
from rfvit_rt.datatypes import Annotation
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.files import check_output, replace_file
from rfvit_rt.sources.recording import (
    ARCHIVE_SUFFIX,
    DATA_SUFFIX,
    META_SUFFIX,
    Recording,
    describe_violation,
    validate_metadata,
)
from rfvit_rt.wire.samples import from_complex64

GENERATOR = f"rfvit-rt {__version__}"
EXTENSION = {"name": "rfvit", "version": "1.0.0", "optional": True}
CORRECTED = ".corrected"  # in the names of files that a person has saved with corrections, or seen to need none
RESULT_SUFFIX = f".rfvit{META_SUFFIX}"


def default_output(recording: Recording) -> Path:
    """Return ``<name>.rfvit.sigmf-meta`` beside the recording."""
    name = recording.meta_path.name.removesuffix(META_SUFFIX).removesuffix(ARCHIVE_SUFFIX)
    return recording.meta_path.with_name(name + RESULT_SUFFIX)


def is_result(path: Path) -> bool:
    """Whether a file is named as :func:`default_output` names what a model found: nobody's annotations."""
    return path.name.endswith(RESULT_SUFFIX)


def holds_results(recording: Recording) -> bool:
    """Whether boxes that a model found stand among a recording's annotations, and nobody has corrected them."""
    boxes = recording.metadata.get("annotations", [])
    return CORRECTED not in recording.meta_path.name and any("rfvit:model" in fields for fields in boxes)


def check_annotations_output(recording: Recording, output: str | Path, overwrite: bool = False) -> None:
    """Check that :func:`write_annotations` can write there, before the work that makes the annotations.

    Raises
    ------
    OutputError
        As :func:`check_output`, and if it would replace or be taken for another recording.
    """
    output = Path(output)
    if not output.name.endswith(META_SUFFIX):
        raise OutputError(f"{output} does not end in {META_SUFFIX}, by which SigMF readers know it; add that")
    check_output(output, overwrite)
    if output.exists() and output.samefile(recording.meta_path):
        raise OutputError(f"{output} is the recording's own metadata, which is never overwritten; name another output")
    for data in (_data_beside(recording, output), output.with_suffix(DATA_SUFFIX)):
        if (data.exists() or data.is_symlink()) and not _same_file(data, recording.data_path):
            raise OutputError(f"{data} exists and is not a link to {recording.data_path}; name another output")


def write_annotations(
    recording: Recording,
    annotations: Iterable[Annotation],
    output: str | Path,
    *,
    model_name: str,
    model_hash: str,
    overwrite: bool = False,
) -> None:
    """Write the recording's metadata with annotations added, in one step: the file is complete or not there.

    Parameters
    ----------
    recording : Recording
        What was annotated. Its own annotations are kept, each once.
    annotations : iterable of Annotation
        In the recording's absolute sample indices, in any order. They are cut off at the recording's end.
    output : str or Path
        The ``.sigmf-meta`` file to write. The samples are linked beside it where they are not there already.
    model_name, model_hash : str
        What found them: name, and digest of the model file in hex.
    overwrite : bool
        Whether an existing output may be replaced. The recording's own metadata never is.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    output = Path(output)
    check_annotations_output(recording, output, overwrite)
    model = f"{model_name}@{model_hash[:12]}"
    found = [
        describe_annotation(annotation, recording.sample_end) | {"rfvit:model": model}
        for annotation in annotations
        if annotation.sample_start < recording.sample_end
    ]
    document = _document(recording.metadata, found)
    data = _data_beside(recording, output)
    linked = _link(data, recording.data_path)
    try:
        _point_to_data(document, recording, data)
        replace_file(output, serialise(document, output))
    except BaseException as error:
        if linked:
            data.unlink()
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
        raise


def write_recording(
    path: str | Path,
    samples: NDArray[np.complex64],
    sample_rate: float,
    frequency: float | None = None,
    *,
    datatype: str = "cf32_le",
    full_scale: float = 1.0,
    description: str = "",
    license_url: str | None = None,
    annotations: Iterable[Annotation] = (),
    overwrite: bool = False,
) -> Path:
    """Write a new recording: data file, then metadata.

    Parameters
    ----------
    path : str or Path
        Base name or ``.sigmf-meta`` file.
    samples : (n,) complex64
        The samples.
    sample_rate : float
        Samples per second, in Hz.
    frequency : float or None
        Centre frequency in Hz.
    datatype : str
        SigMF type to store them in.
    full_scale : float
        Amplitude of I or Q that becomes an integer type's full scale; what is beyond is clipped.
    description : str
        What it is.
    license_url : str or None
        Where the licence that it is offered under can be read.
    annotations : iterable of Annotation
        What is known to be in it; their confidence is not written.
    overwrite : bool
        Whether existing files may be replaced.

    Returns
    -------
    Path
        The metadata file.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    path = Path(path)
    meta_path = path if path.name.endswith(META_SUFFIX) else path.with_name(path.name + META_SUFFIX)
    data_path = meta_path.with_suffix(DATA_SUFFIX)
    for file in (meta_path, data_path):
        check_output(file, overwrite)
    raw = from_complex64(samples, datatype, full_scale)
    fields = {
        "core:datatype": datatype,
        "core:sample_rate": float(sample_rate),
        "core:version": sigmf.__specification__,
        "core:sha512": hashlib.sha512(raw).hexdigest(),
        "core:recorder": GENERATOR,
    }
    if description:
        fields["core:description"] = description
    if license_url is not None:
        fields["core:license"] = license_url
    capture = {"core:sample_start": 0} | ({} if frequency is None else {"core:frequency": float(frequency)})
    truth = sorted(annotations, key=lambda annotation: annotation.sample_start)
    document = {
        "global": fields,
        "captures": [capture],
        "annotations": [_annotation(annotation, len(samples)) for annotation in truth],
    }
    try:
        text = serialise(document, meta_path)
        replace_file(data_path, raw)
        replace_file(meta_path, text)
    except OSError as error:
        raise OutputError(f"cannot write {meta_path}: {error.strerror or error}") from error
    return meta_path


def _annotation(annotation: Annotation, sample_end: int) -> dict[str, Any]:
    return {
        "core:sample_start": annotation.sample_start,
        "core:sample_count": min(annotation.sample_end, sample_end) - annotation.sample_start,
        "core:freq_lower_edge": float(annotation.freq_lower_edge),
        "core:freq_upper_edge": float(annotation.freq_upper_edge),
        "core:label": annotation.label,
        "core:generator": GENERATOR,
    }


def describe_annotation(annotation: Annotation, sample_end: int) -> dict[str, Any]:
    """Give a result as SigMF has it, cut off at `sample_end`."""
    return _annotation(annotation, sample_end) | {
        "core:comment": f"confidence {annotation.confidence:.0%}",
        "rfvit:confidence": round(float(annotation.confidence), 4),
    }


def _document(metadata: Mapping[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Copy of the metadata with annotations added, all in order (sigmf-python would sort again at every one).

    One that is there already is not doubled: a file of results may be segmented again.
    """
    fields = dict(metadata["global"])
    if found:
        others = [item for item in fields.get("core:extensions", []) if item["name"] != EXTENSION["name"]]
        fields["core:extensions"] = [*others, EXTENSION]
    new = {json.dumps(item, sort_keys=True) for item in found}
    own = [item for item in metadata["annotations"] if json.dumps(item, sort_keys=True) not in new]
    annotations = sorted([*own, *found], key=lambda item: item["core:sample_start"])
    captures = [dict(capture) for capture in metadata["captures"]]
    return {**metadata, "global": fields, "captures": captures, "annotations": annotations}


def _data_beside(recording: Recording, output: Path) -> Path:
    """Where readers of the output look for its samples."""
    if _conforms(recording):
        return output.with_suffix(DATA_SUFFIX)
    return output.with_name(recording.data_path.name)


def _conforms(recording: Recording) -> bool:
    """Whether the data file is nothing but samples and named so: SigMF's conforming dataset."""
    headers = any(capture.get("core:header_bytes") for capture in recording.metadata["captures"])
    named = recording.data_path.name.endswith(DATA_SUFFIX)
    return named and not headers and not recording.metadata["global"].get("core:trailing_bytes")


def _link(data: Path, target: Path) -> bool:
    """Make ``data`` a relative link to the samples, unless they are there; return whether one was made."""
    if data.exists():
        return False
    try:
        data.symlink_to(os.path.relpath(target.resolve(), data.parent.resolve()))
    except OSError:  # file systems such as FAT have no links
        return False
    return True


def _point_to_data(document: dict[str, Any], recording: Recording, data: Path) -> None:
    fields = document["global"]
    fields.pop("core:metadata_only", None)
    fields.pop("core:dataset", None)
    if not data.exists():
        if not data.parent.samefile(recording.data_path.parent):
            raise OutputError(f"cannot link {data} to the samples; write the output beside {recording.data_path}")
        fields["core:dataset"] = recording.data_path.name
    elif not _conforms(recording):
        fields["core:dataset"] = data.name
    if recording.in_archive:
        _describe_archive(document, recording)


def _describe_archive(document: dict[str, Any], recording: Recording) -> None:
    """Turn the archive around the samples into the header and trailer of a non-conforming dataset."""
    fields, captures = document["global"], document["captures"]
    fields.pop("core:sha512", None)  # it is the digest of the file in the archive, not of the archive
    if not captures or captures[0]["core:sample_start"] > recording.sample_start:
        captures.insert(0, {"core:sample_start": recording.sample_start})
    captures[0]["core:header_bytes"] = recording.data_start + captures[0].get("core:header_bytes", 0)
    after = recording.data_path.stat().st_size - recording.data_start - recording.data_size
    fields["core:trailing_bytes"] = after + fields.get("core:trailing_bytes", 0)


def serialise(document: Mapping[str, Any], path: Path) -> bytes:
    """Text of the metadata, checked against SigMF's schema, with sections and keys in sigmf-python's order."""
    try:
        validate_metadata(document)
    except jsonschema.ValidationError as error:
        raise OutputError(f"cannot write {path}, it would not be valid SigMF: {describe_violation(error)}") from error
    ordered = sigmf.SigMFFile(metadata=document).ordered_metadata()
    try:
        return (json.dumps(ordered, indent=4, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise OutputError(f"cannot write {path}: a value is NaN or infinite, which JSON has no way to say") from error


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)
