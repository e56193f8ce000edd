# SPDX-License-Identifier: Apache-2.0
"""Own recordings as data: nothing left out in silence, nothing in two splits, boxes where the annotations are."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfvit_rt.datatypes import Annotation
from rfvit_rt.errors import ModelError, OutputError, RecordingError, SpecMismatch
from rfvit_rt.sinks.sigmf import default_output, describe_annotation, write_annotations, write_recording
from rfvit_rt.sources.recording import open_recording
from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature, spectrogram, tiles
from training import checkpoint, curves, finetune, pretrain
from training.config import Annotations, FinetuneRecipe, PretrainRecipe, RecipeError, Split, from_dict
from training.datasets import IGNORED, WindowWriter, open_windows, read_record
from training.prepare import labelled_folder, unlabelled_folder
from training.recordings import LabelMap, find_recordings, write_labelled, write_unlabelled
from training.splits import split_names

SPEC = SpectrogramSpec()
RATE, FREQUENCY = 1.92e6, 2.4e9
WINDOW = SPEC.window_length(RATE)  # samples
RECIPE = """
seed = 3
{more}
[model]
width = 24
depth = 1
heads = 3
patch = 32
[optimisation]
steps = 3
batch_size = 4
log_every = 1
threads = 1
precision = "f32"
device = "cpu"
"""


def record(path: Path, n_windows: float = 1, annotations: list[Annotation] | None = None, rate: float = RATE) -> Path:
    """Noise of its own for every name, and in every annotation a tone at its centre, 20 dB over the noise in a bin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(n_windows * SPEC.window_length(rate))
    samples = (
        np.random.default_rng(list(path.name.encode())).standard_normal((count, 2), np.float32).view(np.complex64)[:, 0]
    )
    for annotation in annotations or []:
        place = slice(annotation.sample_start, annotation.sample_end)
        offset = (annotation.freq_lower_edge + annotation.freq_upper_edge) / 2 - FREQUENCY
        samples[place] += np.exp(2j * np.pi * offset / rate * np.arange(count)[place]).astype(np.complex64)
    return write_recording(path, samples / 8, rate, FREQUENCY, datatype="ci16_le", annotations=annotations or [])


def box(label: str, first: int, last: int, low: float, high: float, rate: float = RATE) -> Annotation:
    """An annotation from time step to time step and from one offset in Hz to another."""
    start, end = (round(step * SPEC.step_length(rate)) for step in (first, last))
    edges = FREQUENCY + low, FREQUENCY + high
    return Annotation(label, start, end - start, *edges, confidence=1, sample_rate=rate, frequency=FREQUENCY)


def edit(meta: Path, change: Any) -> None:
    metadata = json.loads(meta.read_text())
    change(metadata)
    meta.write_text(json.dumps(metadata))


# --- finding


def test_what_cannot_be_read_is_reported_by_name(tmp_path: Path) -> None:
    record(tmp_path / "deep" / "er" / "good")
    record(tmp_path / "cut").with_suffix(".sigmf-data").write_bytes(b"123")
    (tmp_path / "lonely.sigmf-data").write_bytes(b"1234")
    (tmp_path / "packed.sigmf.gz").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a recording")
    lines: list[str] = []
    assert list(find_recordings(tmp_path, lines.append)) == ["deep/er/good.sigmf-meta"]
    assert [line.split(":")[0] for line in lines] == [
        "left out cut.sigmf-meta",
        "left out lonely.sigmf-data",
        "left out packed.sigmf.gz",
        "WARNING",
    ]
    assert lines[-1].startswith("WARNING: 3 of 4 recordings below")


def test_what_a_model_found_is_no_annotation_and_samples_count_once(tmp_path: Path) -> None:
    one = record(tmp_path / "one")
    record(tmp_path / "two")
    result, corrected = default_output(open_recording(one)), tmp_path / "one.corrected.sigmf-meta"
    for output in (result, corrected):
        write_annotations(open_recording(one), [], output, model_name="model", model_hash="0" * 64)
    assert result.name == "one.rfvit.sigmf-meta"
    lines: list[str] = []
    assert list(find_recordings(tmp_path, lines.append)) == [corrected.name, "two.sigmf-meta"]
    assert lines == [
        f"left out {result.name}: it has boxes of a model (rfvit:model); where somebody corrected them, put "
        ".corrected into its name",
        f"left out {one.name}: {corrected.name} has the same samples",
    ]


def test_of_files_about_the_same_samples_the_one_that_says_most_is_taken(tmp_path: Path) -> None:
    record(tmp_path / "all" / "one", annotations=[])
    record(tmp_path / "train" / "one", annotations=[])
    record(tmp_path / "all" / "two", annotations=[])
    labelled = tmp_path / "labelled" / "two.sigmf-meta"
    shutil.copytree(tmp_path / "all", labelled.parent, ignore=shutil.ignore_patterns("one*"))
    note = describe_annotation(box("LTE", 0, 9, -1e5, 1e5), WINDOW)
    edit(labelled, lambda fields: fields["annotations"].append(note))
    assert list(find_recordings(tmp_path, lambda _: None)) == ["labelled/two.sigmf-meta", "train/one.sigmf-meta"]


def test_folders_with_nothing_but_results_say_so(tmp_path: Path) -> None:
    one, found = record(tmp_path / "one"), tmp_path / "results" / "two.sigmf-meta"
    found.parent.mkdir()
    boxes = [box("LTE", 0, 9, -1e5, 1e5)]
    write_annotations(open_recording(one), boxes, found, model_name="model", model_hash="0" * 64)
    with pytest.raises(RecordingError, match="all 1 files hold a model's boxes below"):
        find_recordings(found.parent, lambda _: None)


def test_results_of_any_name_and_copies_of_samples_are_left_out(tmp_path: Path) -> None:
    one = record(tmp_path / "one")
    record(tmp_path / "two")
    found, lines = tmp_path / "a-model.sigmf-meta", []
    boxes = [box("LTE", 0, 9, -1e5, 1e5)]
    write_annotations(open_recording(one), boxes, found, model_name="model", model_hash="0" * 64)
    (tmp_path / "copy").mkdir()
    for path in (one, one.with_suffix(".sigmf-data")):
        shutil.copy(path, tmp_path / "copy")
    with tarfile.open(tmp_path / "packed.sigmf", "w") as archive:
        for path in (one, one.with_suffix(".sigmf-data")):
            archive.add(path, f"one/{path.name}")
    assert list(find_recordings(tmp_path, lines.append)) == ["copy/one.sigmf-meta", "two.sigmf-meta"]
    assert lines == [
        f"left out {found.name}: it has boxes of a model (rfvit:model); where somebody corrected them, put "
        ".corrected into its name",
        "left out one.sigmf-meta: copy/one.sigmf-meta has the same samples",
        "left out packed.sigmf: copy/one.sigmf-meta has the same samples",
    ]


def test_a_folder_without_recordings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="there is no SigMF recording below"):
        find_recordings(tmp_path, print)
    with pytest.raises(RecordingError, match="there is no folder"):
        find_recordings(tmp_path / "none", print)
    (tmp_path / "bad.sigmf-meta").write_text("{")
    with pytest.raises(RecordingError, match="none of 1 recordings can be read"):
        find_recordings(tmp_path, lambda line: None)


# --- splits


def test_splits_divide_whole_recordings_and_depend_on_the_seed() -> None:
    names = [f"r{k}" for k in range(40)]
    chosen = split_names(names, Split(validation=0.2, test=0.1), seed=1)
    assert {kind: len(part) for kind, part in chosen.items()} == {"train": 28, "validation": 8, "test": 4}
    assert sorted(name for part in chosen.values() for name in part) == sorted(names)
    assert split_names(reversed(names), Split(validation=0.2, test=0.1), seed=1) == chosen
    assert split_names(names, Split(validation=0.2, test=0.1), seed=2) != chosen


def test_a_recording_that_comes_to_the_others_moves_few_of_them() -> None:
    names = [f"r{k}" for k in range(40)]
    before, after = (set(split_names(n, Split(validation=0.2), 1)["validation"]) for n in (names, [*names, "new"]))
    assert len(before ^ after) <= 2


@pytest.mark.parametrize(("count", "expected"), [(1, {"train": 1}), (2, {"train": 1, "validation": 1})])
def test_something_is_always_left_to_train_on(count: int, expected: dict[str, int]) -> None:
    chosen = split_names([f"r{k}" for k in range(count)], Split(validation=0.1), seed=1)
    assert {kind: len(part) for kind, part in chosen.items()} == expected
    chosen = split_names([f"r{k}" for k in range(count)], Split(validation=0.1, test=0.1), seed=1)
    assert {kind: len(part) for kind, part in chosen.items()} == expected


def test_folders_that_are_called_so_are_the_splits() -> None:
    names = ["train/b", "train/a/c", "validation/d"]
    assert split_names(names, Split(), 1) == {"train": ["train/a/c", "train/b"], "validation": ["validation/d"]}
    with pytest.raises(RecordingError, match="2 of 5 are in none of train, validation, test: elsewhere, val/e"):
        split_names([*names, "elsewhere", "val/e"], Split(), 1)


# --- windows without labels


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full, which is always full")
def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    def write() -> None:
        with WindowWriter(tmp_path, SPEC, ("background",)) as writer:
            file, kind, shape = writer._arrays[0]
            file.close()
            writer._arrays[0] = (Path("/dev/full").open("wb"), kind, shape)  # noqa: SIM115  (the writer closes it)
            writer.append(np.zeros((256, 256)), np.zeros((256, 256), np.uint8), 0.0, np.nan, 1)
            writer.finish()

    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
        write()


def test_windows_are_the_runtimes_pictures(tmp_path: Path) -> None:
    recording = open_recording(record(tmp_path / "a", n_windows=2.25))
    with WindowWriter(tmp_path / "out", SPEC, ("background",)) as writer:
        assert write_unlabelled(writer, recording, 7) == ""
        writer.finish()
    windows = open_windows(tmp_path / "out")
    samples = np.concatenate([block.samples for block in recording.blocks()])
    starts = [0, WINDOW, len(samples) - WINDOW]  # the last is moved back to be full
    assert len(windows) == 3
    for picture, start in zip(windows.pictures, starts, strict=True):
        expected = spectrogram(samples[start : start + WINDOW], RATE, SPEC)
        np.testing.assert_allclose(picture, expected, atol=2e-3)  # float16
    assert (np.asarray(windows.masks) == IGNORED).all()
    assert windows.scenes.tolist() == [7, 7, 7]
    assert windows.labels == ("background",)
    np.testing.assert_allclose(windows.bin_widths, bin_width_feature(RATE, SPEC), rtol=1e-6)


def test_wide_bands_are_cut_into_tiles(tmp_path: Path) -> None:
    rate = 100e6
    recording = open_recording(record(tmp_path / "wide", n_windows=0.05, rate=rate))
    with WindowWriter(tmp_path / "out", SPEC, ("background",)) as writer:
        write_unlabelled(writer, recording, 0)
        writer.finish()
    windows = open_windows(tmp_path / "out")
    samples = np.concatenate([block.samples for block in recording.blocks()])
    expected = tiles(spectrogram(samples, rate, SPEC), SPEC)
    assert len(windows) == len(expected) == 3
    np.testing.assert_allclose(windows.pictures, expected, atol=2e-3)
    assert not windows.pictures[:, 12:].any()  # 12 of 256 steps: a short window is filled up


def test_windows_of_nothing_and_samples_that_are_no_numbers_are_reported(tmp_path: Path) -> None:
    silent = write_recording(tmp_path / "silent", np.zeros(2 * WINDOW, np.complex64), RATE)
    samples = np.ones(2 * WINDOW, np.complex64)
    samples[WINDOW + 5] = np.nan
    broken = write_recording(tmp_path / "broken", samples, RATE)
    with WindowWriter(tmp_path / "out", SPEC, ("background",)) as writer:
        assert write_unlabelled(writer, open_recording(silent), 0) == "2 windows hold nothing but zeros"
        assert writer.count == 0
        assert "is NaN" in write_unlabelled(writer, open_recording(broken), 1)
        assert writer.count == 1


def test_a_rate_that_the_spec_does_not_fit_is_reported(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    record(recordings / "train" / "good")
    slow = np.ones(40_000, np.complex64)
    write_recording(recordings / "train" / "slow", slow, 1e6)
    lines: list[str] = []
    folder = unlabelled_folder(recordings, tmp_path / "run", Split(), 1, SPEC, lines.append)
    assert any("slow.sigmf-meta: the source has 1 MS/s" in line for line in lines)
    left_out = read_record(folder / "train")["left_out"]
    assert list(left_out) == ["train/slow.sigmf-meta"]


def test_windows_are_made_once_and_again_where_something_changed(tmp_path: Path) -> None:
    recordings, run = tmp_path / "recordings", tmp_path / "run"
    record(recordings / "a")

    def prepare(seed: int = 1) -> list[str]:
        lines: list[str] = []
        unlabelled_folder(recordings, run, Split(), seed, SPEC, lines.append)
        return lines

    drawn = "sorted by a hash of their names and the seed"
    assert prepare() == [f"{drawn}: train 1", "train: 1 windows of 1 recordings"]
    assert "is there already" in prepare()[1]
    record(recordings / "b")
    assert prepare()[1:] == ["train: 1 windows of 1 recordings", "validation: 1 windows of 1 recordings"]
    (recordings / "b.sigmf-meta").unlink()
    (recordings / "b.sigmf-data").unlink()
    prepare()
    assert read_record(run / "windows" / "validation") == {}  # not taken for one of the new division


# --- labels


def test_labels_are_exact_or_patterns_and_the_rest_is_counted() -> None:
    classes = {"LTE": ["LTE", "E-UTRA.*"], "WLAN": ["802\\.11[abgn]+", "wifi (2.4)"]}
    label_map = LabelMap(Annotations(classes))
    assert label_map.labels == ("background", "LTE", "WLAN")
    values = [label_map.value(name) for name in ("LTE", "E-UTRA band 3", "802.11n", "wifi (2.4)", "LTE-M", "")]
    assert values == [1, 1, 2, 2, IGNORED, IGNORED]
    assert label_map.unmapped == {"LTE-M": 1, "": 1}
    assert LabelMap(Annotations(classes, unmapped="background")).value("GSM") == 0


def test_a_label_of_two_classes_is_refused() -> None:
    label_map = LabelMap(Annotations({"LTE": ["L.*"], "other": [".*"]}))
    with pytest.raises(RecordingError, match="'LTE' means LTE and other"):
        label_map.value("LTE")
    with pytest.raises(RecipeError, match="no regular expression"):
        Annotations({"LTE": ["("]})


def masks_of(tmp_path: Path, annotations: list[Annotation], options: Annotations) -> np.ndarray:
    recording = open_recording(record(tmp_path / "a", 1.5, annotations))
    label_map = LabelMap(options)
    with WindowWriter(tmp_path / "out", SPEC, label_map.labels) as writer:
        write_labelled(writer, recording, 0, label_map)
        writer.finish()
    return np.array(open_windows(tmp_path / "out").masks)


def test_boxes_become_masks_in_time_and_frequency(tmp_path: Path) -> None:
    width = RATE / 256
    annotations = [box("LTE", 32, 96, -20.7 * width, 11.3 * width)]  # at least half of a pixel
    masks = masks_of(tmp_path, annotations, Annotations({"LTE": ["LTE"]}))
    expected = np.zeros((256, 256), np.uint8)
    expected[32:96, 128 - 20 : 128 + 12] = 1  # bin k is centred k - 128 widths from the centre
    np.testing.assert_array_equal(masks[0], expected)
    assert not masks[1].any()  # the second window starts at step 128


def test_the_labelled_pixels_are_those_that_are_loud(tmp_path: Path) -> None:
    """A box around a tone marks the very pixels that the tone raises."""
    width = RATE / 256
    masks_of(tmp_path, [box("LTE", 100, 200, 29.5 * width, 30.5 * width)], Annotations({"LTE": ["LTE"]}))
    windows = open_windows(tmp_path / "out")
    loud = windows.pictures[0] * SPEC.db_scale > 12
    mask = windows.masks[0] == 1
    assert mask.sum() == 100
    assert loud[mask].all()
    rows, columns = np.nonzero(loud)
    assert (rows.min(), rows.max()) == (100, 199)
    assert set(columns.tolist()) <= {157, 158, 159}  # Hann windows leak into one bin either side


def test_small_boxes_lie_on_large_ones_and_bursts_shorter_than_a_pixel_are_kept(tmp_path: Path) -> None:
    annotations = [
        box("NR", 10, 20, -1e5, 1e5),
        box("the band", 0, 384, -8e5, 8e5),
        Annotation("NR", round(50.2 * SPEC.step_length(RATE)), 20, FREQUENCY + 1e5, FREQUENCY + 1.1e5, 1, RATE),
    ]
    ignoring = masks_of(tmp_path, annotations, Annotations({"NR": ["NR"]}))[0]
    assert (ignoring[10:20, 125:132] == 1).all()
    assert (ignoring[30, 125:132] == IGNORED).all()
    assert (ignoring[:, :10] == 0).all()
    burst = np.argwhere(ignoring[45:55] == 1)
    assert set(burst[:, 0].tolist()) == {5}
    assert 1 <= len(burst) <= 2
    (tmp_path / "b").mkdir()
    known = masks_of(tmp_path / "b", annotations, Annotations({"NR": ["NR"]}, unmapped="background"))[0]
    assert not (known == IGNORED).any()
    np.testing.assert_array_equal(known == 1, ignoring == 1)


def test_an_annotation_without_edges_or_length_is_all_there_is(tmp_path: Path) -> None:
    meta = record(tmp_path / "a", 1)

    def change(metadata: dict[str, Any]) -> None:
        metadata["annotations"] = [{"core:sample_start": WINDOW // 2, "core:label": "LTE"}]

    edit(meta, change)
    label_map = LabelMap(Annotations({"LTE": ["LTE"]}))
    with WindowWriter(tmp_path / "out", SPEC, label_map.labels) as writer:
        write_labelled(writer, open_recording(meta), 0, label_map)
        writer.finish()
    mask = open_windows(tmp_path / "out").masks[0]
    assert (mask[:128] == 0).all()
    assert (mask[128:] == 1).all()


def finetune_recipe(**sections: Any) -> FinetuneRecipe:
    return from_dict(sections, FinetuneRecipe)


def test_a_folder_that_nobody_explained_says_what_is_in_it(tmp_path: Path) -> None:
    record(tmp_path / "data" / "a", annotations=[box("LTE", 0, 9, -1e5, 1e5), box("LTE", 20, 29, -1e5, 1e5)])
    with pytest.raises(RecordingError, match=r"annotations.classes.*There are: 'LTE' 2 times"):
        labelled_folder(tmp_path / "data", tmp_path / "run", finetune_recipe(), print)


def test_recordings_without_annotations_are_left_out_unless_they_are_known_to_be_empty(tmp_path: Path) -> None:
    for name in "ab":
        record(tmp_path / "data" / name, annotations=[box("LTE", 0, 9, -1e5, 1e5), box("GSM", 0, 9, 2e5, 3e5)])
    record(tmp_path / "data" / "nobody looked")
    classes = {"LTE": ["LTE"]}
    lines: list[str] = []
    folder = labelled_folder(
        tmp_path / "data", tmp_path / "run", finetune_recipe(annotations={"classes": classes}), lines.append
    )
    used = [name for kind in ("train", "validation") for name in read_record(folder / kind)["recordings"]]
    assert sorted(used) == ["a.sigmf-meta", "b.sigmf-meta"]
    text = "\n".join(lines)
    assert "left out 1 recordings without annotations: nobody looked.sigmf-meta" in text
    assert "annotations of no class are ignored pixels: 'GSM' 2 times" in text
    options = {"classes": classes, "unannotated": "background"}
    folder = labelled_folder(tmp_path / "data", tmp_path / "other", finetune_recipe(annotations=options), lines.append)
    used = [name for kind in ("train", "validation") for name in read_record(folder / kind)["recordings"]]
    assert "nobody looked.sigmf-meta" in used


def test_a_class_that_a_split_lacks_is_a_warning(tmp_path: Path) -> None:
    record(tmp_path / "data" / "train" / "a", annotations=[box("LTE", 0, 99, -1e5, 1e5)])
    record(tmp_path / "data" / "validation" / "b", annotations=[box("NR", 0, 99, -1e5, 1e5)])
    lines: list[str] = []
    recipe = finetune_recipe(annotations={"classes": {"LTE": ["LTE"], "NR": ["NR"]}})
    labelled_folder(tmp_path / "data", tmp_path / "run", recipe, lines.append)
    assert lines[0] == "sorted by the folders that they lie in: train 1, validation 1"
    assert "WARNING: no pixel of NR" in lines[1]
    assert "WARNING: no pixel of LTE" in lines[2]


def test_annotations_outside_of_a_recording_are_reported(tmp_path: Path) -> None:
    there, beside = box("LTE", 0, 99, -1e5, 1e5), box("LTE", 0, 99, -2e6, -1.5e6)
    path = record(tmp_path / "one", annotations=[there])
    baseband = box("LTE", 0, 99, -1e5 - FREQUENCY, 1e5 - FREQUENCY)  # edges that are offsets, as other tools write them
    edit(path, lambda fields: fields["annotations"].extend(describe_annotation(b, WINDOW) for b in (beside, baseband)))
    with WindowWriter(tmp_path / "train", SPEC, ("background", "LTE")) as writer:
        said = write_labelled(writer, open_recording(path), 1, LabelMap(Annotations({"LTE": ["LTE"]})))
    assert said.startswith("2 of 3 annotations lie outside its time or band")


# --- whole runs


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "pretrain.toml"
    more = "[masking]\ndecoder_width = 24\n[monitor]\nevery = 2\nwindows = 4\npictures = 1\n"
    path.write_text(RECIPE.format(more="recordings_share = 0.25") + more)
    return path


def test_pretraining_on_recordings_alone(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        record(tmp_path / "mine" / f"r{seed}", 2)
    (tmp_path / "mine" / "bad.sigmf-meta").write_text("{}")
    out = tmp_path / "run"
    pretrain.main(config=recipe, out=out, recordings=tmp_path / "mine")
    said = capsys.readouterr()
    assert "left out bad.sigmf-meta" in said.out
    assert "no labelled windows, so nothing is probed" in said.err
    saved = checkpoint.load(out / checkpoint.LAST)
    assert (saved.step, saved.labels, saved.spec) == (3, ("background",), SPEC)
    assert saved.provenance["train_windows"] == 4
    entries = curves.entries_of(out)
    assert [entry["held_out"].keys() == {"recordings"} for entry in entries if "held_out" in entry] == [True] * 3
    assert (out / "reconstructions" / "step-000002.png").read_bytes().startswith(b"\x89PNG")

    # Goes on from there, and not with other recordings.
    pretrain.main(config=recipe, out=out, recordings=tmp_path / "mine", resume=True, steps=5)
    assert checkpoint.load(out / checkpoint.LAST).step == 5
    record(tmp_path / "mine" / "new", 2)
    with pytest.raises(ModelError, match="was trained with 4 train windows, now there are 6"):
        pretrain.main(config=recipe, out=out, recordings=tmp_path / "mine", resume=True, steps=6)


def test_pretraining_needs_something_to_train_on(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="give --data, --recordings, or both"):
        pretrain.main(config=recipe, out=tmp_path / "run")
    with pytest.raises(RecipeError, match="recordings_share lies between 0 and 1"):
        PretrainRecipe(recordings_share=1.0)


def test_recordings_beside_scenes_are_made_into_pictures_as_the_scenes_were(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "mine" / "train" / "a", 2)
    out = tmp_path / "run"
    pretrain.main(config=recipes["pretrain"], out=out, data=scenes, recordings=tmp_path / "mine", steps=2)
    windows = open_windows(out / "windows" / "train")
    assert windows.pictures.shape[1:] == (64, 64)
    assert checkpoint.load(out / checkpoint.LAST).provenance["train_windows"] == 48 + len(windows)
    assert "no split validation of the recordings" in capsys.readouterr().err
    looks = [entry for entry in curves.entries_of(out) if "held_out" in entry]
    assert all(entry["held_out"].keys() == {"scenes"} and entry["linear_probe"] for entry in looks)
    with pytest.raises(SpecMismatch, match="made in another way"):
        pretrain.main(
            config=recipes["pretrain"],
            out=tmp_path / "again",
            recordings=tmp_path / "mine",
            monitor=scenes / "validation",
            steps=2,
        )


def test_finetuning_on_own_labels_gives_a_model_with_them(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "validation/c"):
        record(tmp_path / "data" / name, 2, [box("Bluetooth LE", 50, 150, -1e5, 1e5), box("?", 0, 9, 3e5, 4e5)])
    recipe = tmp_path / "finetune.toml"
    recipe.write_text(RECIPE.format(more="validate_every = 3") + '[annotations.classes]\nBLE = ["Bluetooth.*"]\n')
    out = tmp_path / "run"
    finetune.main(config=recipe, data=tmp_path / "data", out=out)
    best = checkpoint.load(out / checkpoint.BEST)
    assert best.labels == ("background", "BLE")
    assert best.vit.n_classes == 2
    assert best.provenance["train_scenes"] == 2
    (scores,) = (entry for entry in curves.entries_of(out) if "miou" in entry)
    assert set(scores["iou"]) == {"background", "BLE"}


def test_data_of_no_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no windows, no SigMF recordings, and no folders images and labels"):
        labelled_folder(tmp_path, tmp_path / "run", finetune_recipe(), print)
