# SPDX-License-Identifier: Apache-2.0
"""Whatever a user has, generated scenes, recordings or images, becomes splits of windows on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rfvit_rt.errors import RecordingError, RfvitError
from rfvit_rt.sources.recording import Recording
from rfvit_rt.spectrogram import SpectrogramSpec
from training import images as pairs
from training import recordings as sigmf
from training.config import Annotations, FinetuneRecipe, Images, Split
from training.datasets import RECORD, WindowWriter, open_windows, read_record
from training.recordings import LabelMap, Report
from training.splits import SPLITS, sorted_by_hand, split_names

WINDOWS = "windows"  # folder within a run's, for windows that it had to make
Item = TypeVar("Item")


def labelled_folder(data: Path, out: Path, recipe: FinetuneRecipe, report: Report) -> Path:
    """Folder with the splits train and validation: `data` itself, or `out` with the windows that were made of it.

    Parameters
    ----------
    data : Path
        Splits of windows, as ``training.scenes`` makes them; or SigMF recordings with annotations; or pairs of images,
        see :mod:`training.images`.
    out : Path
        Folder of the run.
    recipe : FinetuneRecipe
    report : callable
        Takes a line about what was found and what was left out.

    Raises
    ------
    RecordingError
        If the folder is none of these, leaves nothing to train or to validate on, or has other labels than the recipe.
    """
    if (data / "train" / "pictures.npy").is_file():
        return _check_classes(data, recipe.annotations)
    if not data.is_dir():
        return data  # opening it says what is missing
    spec = SpectrogramSpec()
    if pairs.has_images(data):
        return _pairs(data, out / WINDOWS, recipe.images, recipe.split, recipe.seed, spec, report)
    if sigmf.has_recordings(data):
        return _annotated(data, out / WINDOWS, recipe.annotations, recipe.split, recipe.seed, spec, report)
    raise RecordingError(
        f"{data} holds no windows, no SigMF recordings, and no folders {pairs.PICTURES} and {pairs.LABELS}; make "
        "windows with 'python -m training.scenes'"
    )


def _check_classes(data: Path, annotations: Annotations) -> Path:
    """Windows have their labels already: a recipe that says what annotations mean must have come to the same."""
    labels = open_windows(data / "train").labels
    if annotations.classes and LabelMap(annotations).labels != labels:
        raise RecordingError(
            f"the recipe lists under [annotations.classes] {', '.join(annotations.classes)}; {data} holds windows that "
            f"are labelled already, {', '.join(labels)}: leave the section out, or give recordings"
        )
    return data


def unlabelled_folder(folder: Path, out: Path, split: Split, seed: int, spec: SpectrogramSpec, report: Report) -> Path:
    """Cut all recordings below a folder into windows without labels; return the folder with their splits."""
    found = sigmf.find_recordings(folder, report)

    def write(writer: WindowWriter, recording: Recording, number: int) -> str:
        return sigmf.write_unlabelled(writer, recording, number)

    return _write(found, out / WINDOWS, ("background",), {"kind": "unlabelled"}, split, seed, spec, write, report)


def _annotated(
    data: Path,
    out: Path,
    annotations: Annotations,
    split: Split,
    seed: int,
    spec: SpectrogramSpec,
    report: Report,
) -> Path:
    found = sigmf.find_recordings(data, report)
    labels = Counter(label for recording in found.values() for label in sigmf.annotated_labels(recording))
    if not annotations.classes:
        raise RecordingError(
            f"the recipe does not say what the annotations of {data} mean; list under [annotations.classes] which "
            f"core:label is which class. There are: {_counts(labels) or 'no annotations at all'}"
        )
    label_map = LabelMap(annotations)
    empty = [name for name, recording in found.items() if not sigmf.annotated_labels(recording)]
    if empty and annotations.unannotated == "leave out":
        report(
            f"left out {len(empty)} recordings without annotations: {', '.join(empty)}; where they are known to hold "
            'nothing, say [annotations] unannotated = "background"'
        )
        found = {name: recording for name, recording in found.items() if name not in empty}

    def write(writer: WindowWriter, recording: Recording, number: int) -> str:
        return sigmf.write_labelled(writer, recording, number, label_map)

    made_of = {"kind": "annotated", "annotations": dataclasses.asdict(annotations)}
    folder = _write(found, out, label_map.labels, made_of, split, seed, spec, write, report)
    if label_map.unmapped:
        meaning = "ignored pixels" if annotations.unmapped == "ignore" else "background"
        report(f"annotations of no class are {meaning}: {_counts(label_map.unmapped)}")
    return folder


def _pairs(
    data: Path, out: Path, images: Images, split: Split, seed: int, spec: SpectrogramSpec, report: Report
) -> Path:
    def write(writer: WindowWriter, pair: tuple[Path, Path], number: int) -> str:
        try:
            pairs.write_pair(writer, pair, number, images)
        except RfvitError as error:
            return str(error)
        return ""

    made_of = {"kind": "images", "images": dataclasses.asdict(images)}
    return _write(pairs.find_pairs(data), out, tuple(images.classes), made_of, split, seed, spec, write, report)


def _write(
    found: Mapping[str, Item],
    out: Path,
    labels: tuple[str, ...],
    made_of: dict[str, Any],
    split: Split,
    seed: int,
    spec: SpectrogramSpec,
    write: Callable[[WindowWriter, Item, int], str],
    report: Report,
) -> Path:
    """Write splits, or take those that an earlier start of the run made of the same."""
    source = _fingerprint(found, made_of | {"labels": labels}, split, seed, spec)
    chosen = split_names(found, split, seed)
    if not chosen:
        raise RecordingError("nothing is left to train on; see above for what was left out and why")
    if len(labels) > 1 and "validation" not in chosen:
        by_hand, drawn = "put some into a folder validation", "give two or more, and [split] validation above 0"
        raise RecordingError(
            f"{len(found)} with labels leave none to validate on; weights are chosen on others than they learnt from: "
            f"{by_hand if sorted_by_hand(found) else drawn}"
        )
    by = "the folders that they lie in" if sorted_by_hand(found) else "a hash of their names and the seed"
    report(f"sorted by {by}: {', '.join(f'{kind} {len(names)}' for kind, names in chosen.items())}")
    for kind in set(SPLITS) - chosen.keys():
        (out / kind / RECORD).unlink(missing_ok=True)  # of another division
    numbers = {name: number for number, name in enumerate(sorted(found))}
    for kind, names in chosen.items():
        folder = out / kind
        if read_record(folder).get("source") == source:
            report(f"{folder} is there already, made of the same")
            continue
        left_out: dict[str, str] = {}
        with WindowWriter(folder, spec, labels) as writer:
            for name in names:
                before = writer.count
                if reason := write(writer, found[name], numbers[name]):
                    left_out[name] = reason
                    report(f"{name}: {reason} ({writer.count - before} windows of it are used)")
            if not writer.count:
                raise RecordingError(f"the {len(names)} recordings of the split {kind} hold no window; see above")
            writer.finish(recordings={name: numbers[name] for name in names}, left_out=left_out, source=source)
            report(f"{kind}: {writer.count} windows of {len(names)} recordings{_shares(writer)}")
    return out


def _fingerprint(
    found: Mapping[str, Any], made_of: dict[str, Any], split: Split, seed: int, spec: SpectrogramSpec
) -> str:
    """Tell whether windows would come out the same: names, sizes and times of files, and all settings."""
    files: dict[str, Any] = {}
    for name, item in found.items():
        paths: Iterable[Path] = (item.meta_path, item.data_path) if isinstance(item, Recording) else item
        files[name] = [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    settings = {"split": dataclasses.asdict(split), "seed": seed, "spec": dataclasses.asdict(spec)}
    text = json.dumps([files, made_of, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _shares(writer: WindowWriter) -> str:
    """Share of every label's pixels, and a warning where a class does not occur."""
    if len(writer.labels) < 2:
        return ""
    total = max(1, int(writer.pixels.sum()))
    shares = ", ".join(f"{n} {c / total:.2%}" for n, c in zip(writer.labels, writer.pixels.tolist(), strict=True))
    absent = [name for name, count in zip(writer.labels, writer.pixels.tolist(), strict=True) if not count]
    return f": {shares}" + (f"; WARNING: no pixel of {', '.join(absent)}" if absent else "")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"'{label}' {count} times" for label, count in counter.most_common(20))
