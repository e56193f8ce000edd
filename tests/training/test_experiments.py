# SPDX-License-Identifier: Apache-2.0
"""The tables about segmentation: what is asked, made once, gathered over seeds; windows and recordings of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rfvit_rt.datatypes import Annotation
from rfvit_rt.errors import OutputError, RecordingError, SpecMismatch
from rfvit_rt.models import find_model
from rfvit_rt.sinks.sigmf import write_recording
from rfvit_rt.sources.recording import Recording, open_recording
from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature
from training import checkpoint, compare
from training.config import FinetuneRecipe, PretrainRecipe, UNetSize, read_recipe
from training.datasets import RECORD, WindowWriter, open_windows
from training.experiments import captures, make, report
from training.experiments.captures import Captures
from training.experiments.models import Encoder, Place, answer, encoder_of, make_encoder, recipe_of
from training.experiments.sets import make_set, window_sets
from training.experiments.trials import ENERGY, LARGER, LOSSES, MSM, SCRATCH, TABLES, UNET, Trial, trials
from training.tables import draw_lines, markdown, mean_and_spread
from training.trials import run_trials, write_json
from training.weathering import SNR_DB, weathered

LABELS = ("background", "LTE", "NR", "WLAN", "Bluetooth", "other")

# --- what is asked


def test_every_trial_has_a_file_of_its_own_and_every_table_its_baselines() -> None:
    every = {trial for table in TABLES for trial in trials(table, 2)}
    assert len({trial.name for trial in every}) == len(every)
    for table in TABLES:
        asked = trials(table, 2)
        assert len(set(asked)) == len(asked)
        assert {"unet", "energy"} <= {trial.method for trial in asked}
        assert sum(trial.method == "energy" for trial in asked) == 1  # it has no seed
        assert {trial.seed for trial in asked if trial.method == "vit"} == {1, 2}
        assert table in report.TITLES


def test_model_files_are_measured_beside_trials_where_these_are_not_trained_for_the_table() -> None:
    file = Trial("file", "a/b.onnx", weights="0123abcd")
    assert trials("snr", 3, [file])[-1] == file
    assert file.text == "b.onnx"
    assert dataclasses.replace(file, weights="4567ef01").name != file.name  # results of other weights are others
    assert file not in trials("labels", 1, [file])


def test_a_trial_says_what_it_is() -> None:
    assert SCRATCH.text == "ViT, from scratch"
    assert dataclasses.replace(MSM, labels=0.05, budget=0.5).text == (
        "ViT, after MSM, 0.5 times the updates, 5% of the labels"
    )
    assert LARGER.text == "ViT, 4 times as large, from scratch"
    assert dataclasses.replace(MSM, geometry="time", ratio=0.9, adapt="frozen").text == (
        "ViT, after MSM (time, 90% hidden), frozen"
    )


@pytest.fixture(scope="module")
def place(scenes: Path, recipes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Place:
    pretraining = read_recipe(recipes["pretrain"], PretrainRecipe).for_run(4, None)
    finetuning = read_recipe(recipes["finetune"], FinetuneRecipe).for_run(30, None)
    return Place(scenes, tmp_path_factory.mktemp("experiments"), pretraining, finetuning, UNetSize(8, 3))


def test_a_trials_recipe_differs_in_what_sets_it_apart_alone(place: Place) -> None:
    base = recipe_of(SCRATCH, place, 3)
    assert (base.validate_every, base.unet, base.model.width) == (30, None, 48)  # validated once, at the end
    assert recipe_of(dataclasses.replace(SCRATCH, budget=2.0), place, 3).optimisation.steps == 60
    larger = recipe_of(LARGER, place, 3)
    assert dataclasses.replace(larger, model=base.model) == base
    assert (larger.model.width, larger.model.heads, larger.model.depth) == (96, 6, 2)
    assert recipe_of(UNET, place, 3) == dataclasses.replace(base, unet=UNetSize(8, 3))
    losses = [recipe_of(dataclasses.replace(SCRATCH, loss=loss), place, 3).loss for loss in LOSSES]
    assert len({repr(loss) for loss in losses}) == len(LOSSES)
    assert losses[0] == base.loss
    assert losses[4].class_weights == [1.0, 1.0, 1.0]
    spared = dataclasses.replace(place.finetuning.optimisation, layer_decay=0.75)
    spares = dataclasses.replace(place, finetuning=dataclasses.replace(place.finetuning, optimisation=spared))
    decays = {trial.start: recipe_of(trial, spares, 3).optimisation.layer_decay for trial in (MSM, SCRATCH)}
    assert decays == {"msm": 0.75, "scratch": 1.0}  # it would hold back what has all to learn
    assert encoder_of(SCRATCH, place) is None
    assert encoder_of(MSM, place) == Encoder("region", 0.75, "textures", "patches")


# --- how it is made


@pytest.fixture(scope="module")
def made(place: Place) -> Place:
    """Place with an encoder, what starts from it, and the baselines."""
    make_encoder(Encoder("region", 0.75, "textures", "patches"), place)
    for trial in (MSM, dataclasses.replace(MSM, seed=2), UNET, ENERGY):
        answer(trial, place)
    return place


def test_trials_are_trained_measured_and_kept(made: Place) -> None:
    results = {trial: json.loads(made.result(trial).read_text()) for trial in (MSM, UNET, ENERGY)}
    for trial, result in results.items():
        assert result["trial"] == dataclasses.asdict(trial)
        assert result["overall"]["miou"] > 0.3
    assert results[MSM]["steps"] == 30
    assert results[MSM]["parameters"] == sum(
        value.numel() for value in checkpoint.load(made.run(MSM) / checkpoint.BEST).mean.values()
    )
    assert "calibration" not in results[ENERGY]  # it has no confidence
    assert checkpoint.load(made.run(MSM) / checkpoint.BEST).provenance["pretrained"]["steps"] == 4
    assert not (made.run(MSM) / checkpoint.LAST).exists()
    assert "finetuning" in (made.run(MSM) / "output.log").read_text()
    encoder = json.loads(Encoder("region", 0.75, "textures", "patches").result(made).read_text())
    assert encoder["updates"] == encoder["last"]["step"] == 4
    assert encoder["first"]["step"] == 0


def test_seeds_are_gathered_and_tables_written(made: Place, tmp_path: Path) -> None:
    rows = report.gather("larger", trials("larger", 2), made, ("background", "LTE", "NR"))
    assert [row.text for row in rows] == ["ViT, after MSM", "U-Net", "energy detector"]  # what is made
    values = rows[0].figures["mIoU"]
    assert len(values) == 2
    assert values[0] != values[1]
    text = report.write("larger", rows, dataclasses.replace(made, out=tmp_path), ("background", "LTE", "NR"))
    assert f"| ViT, after MSM | {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} |" in text
    assert (tmp_path / "tables" / "larger.md").read_text() == text
    assert json.loads((tmp_path / "tables" / "larger.json").read_text())[0]["figures"]["mIoU"] == values
    assert (tmp_path / "tables" / "larger.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_maskings_has_the_probes(made: Place) -> None:
    asked = dataclasses.replace(MSM, geometry="region", ratio=0.75)
    write_json(json.loads(made.result(MSM).read_text()), made.result(asked))
    (row,) = report.gather("masking", [asked], made, ("background", "LTE", "NR"))
    made.result(asked).unlink()
    assert 0 <= row.figures["linear probe, mIoU"][0] <= 1


def test_a_call_makes_what_is_missing_and_nothing_twice(
    made: Place, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (made.result(UNET)).unlink()  # but its training is complete
    before = {path: path.stat().st_mtime_ns for path in (made.out / "results").rglob("*.json")}
    monkeypatch.setitem(TABLES, "larger", lambda: iter((MSM, UNET, ENERGY)))
    options = {"data": made.data, "out": made.out, "pretraining": recipes["pretrain"], "unet_width": 8}
    call = {**options, "finetuning": recipes["finetune"], "pretrain_updates": 4, "updates": 30, "seeds": 1}
    monkeypatch.setattr(make, "UNetSize", lambda width: UNetSize(width, 3))  # the scenes here are small
    make.main(["larger"], processes=1, **call)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert made.result(UNET).is_file()
    assert "| U-Net |" in capsys.readouterr().out
    with pytest.raises(OutputError, match=r"other settings \(finetuning\)"):
        make.main(["larger"], processes=1, **(call | {"updates": 31}))
    with pytest.raises(SpecMismatch, match="n_steps 64, not 256"):
        make.main(["snr"], processes=1, model=["spectrum-small"], **call)


def test_results_on_other_recordings_are_not_put_beside_those_on_the_first(
    made: Place, recording: Recording, tmp_path: Path
) -> None:
    place, first = dataclasses.replace(made, out=tmp_path / "out"), Captures(recording.meta_path.parent, ("ma*",))
    make._check_settings(place, 100, first)
    make._check_settings(place, 100, None)  # a call for other tables, which stay noted
    elsewhere = tmp_path / "out" / "elsewhere"
    elsewhere.mkdir()
    for path in (recording.meta_path, recording.data_path):
        shutil.copy(path, elsewhere)
    make._check_settings(dataclasses.replace(place, unlabelled=elsewhere), 100, first)
    with pytest.raises(OutputError, match=r"other settings \(captures\)"):
        make._check_settings(place, 100, Captures(first.folder, ("mad*",)))
    with pytest.raises(OutputError, match=r"other settings \(unlabelled\)"):
        make._check_settings(dataclasses.replace(place, unlabelled=first.folder), 100, first)
    for name in ("made.rfvit", "another"):
        for path in (recording.meta_path, recording.data_path):
            shutil.copy(path, first.folder / f"{name}{path.suffix}")
        if name != "another":  # what a model found is not measured on
            make._check_settings(place, 100, first)
    with pytest.raises(OutputError, match=r"other settings \(captures\)"):
        make._check_settings(place, 100, first)


def test_wrong_calls_are_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no table sizes; choose of labels, larger"):
        make.main(["sizes"], data=scenes, out=tmp_path)
    for table in ("captures", "recordings"):
        with pytest.raises(RecordingError, match=f"the table {table} needs recordings.*--captures"):
            make.main([table], data=scenes, out=tmp_path)
    with pytest.raises(RecordingError, match="--unlabelled"):
        make.main(["recordings"], data=scenes, out=tmp_path, captures=tmp_path)


def write_down(number: int) -> str:
    raise RecordingError(f"number {number}")


def test_the_first_error_of_a_trial_ends_all() -> None:
    with pytest.raises(RecordingError, match="number 7"):
        run_trials(write_down, [7], 1)


# --- other windows


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with six labels whose pictures are those of the default spec; nothing is in them."""
    root = tmp_path_factory.mktemp("six")
    spec = SpectrogramSpec()
    with WindowWriter(root / "validation", spec, LABELS) as writer:
        writer.append(np.zeros((256, 256)), np.zeros((256, 256), np.uint8), 0.0, np.nan, 1)
        writer.finish()
    return root


def test_sets_hold_what_their_tables_ask_for(six: Path, tmp_path: Path) -> None:
    spec = SpectrogramSpec()
    noise, other, industrial = window_sets("alarms", LABELS)
    rates = {each.level: each for each in window_sets("rates", LABELS)}
    snrs = {each.level: each for each in window_sets("snr", LABELS)}
    chosen = (noise, other, industrial, rates["5 MS/s"], snrs["10 dB"])
    for each in chosen:
        make_set(each, six, tmp_path, 2)
    windows = {each.level: open_windows(each.folder(tmp_path)) for each in chosen}
    assert not windows["noise"].masks.any()
    assert set(np.unique(windows["other"].masks)) == {0, 5}
    named = set(np.unique(windows["WLAN and Bluetooth"].masks))
    assert named & {3, 4}
    assert not named & {1, 2}
    np.testing.assert_allclose(windows["5 MS/s"].bin_widths, bin_width_feature(5e6, spec), rtol=1e-6)
    levels = windows["10 dB"].snr_db
    assert (np.isnan(levels) | (np.abs(levels - 10) < 1e-4)).all()
    assert windows["other"].labels == LABELS
    record = json.loads((six / "validation" / RECORD).read_text())
    (six / "validation" / RECORD).write_text(json.dumps(record | {"settings": {"sample_rate": 10e6}}))
    make_set(snrs["10 dB"], six, tmp_path, 2)
    widths = open_windows(snrs["10 dB"].folder(tmp_path)).bin_widths
    np.testing.assert_allclose(widths, bin_width_feature(10e6, spec), rtol=1e-6)  # that of the data
    assert window_sets("labels", LABELS) == []


def test_false_alarms_are_counted_by_what_they_are_called() -> None:
    confusion = np.zeros((6, 6), int)
    confusion[0] = (80, 4, 6, 3, 2, 5)
    level = {"confusion": confusion.tolist(), "pixels": 100}
    found = report._levels("alarms", {"noise": level, "other": level, "WLAN and Bluetooth": level}, LABELS)
    assert found == {
        "any signal on noise": 0.2,
        "LTE or NR on noise": 0.1,
        "a class on other signals": 0.15,
        "LTE or NR on other signals": 0.1,
        "LTE or NR on WLAN and Bluetooth signals": 0.1,
    }


# --- recordings


def carrier(label: str, lower: float, upper: float, start: int = 0, count: int = 20_000) -> Annotation:
    return Annotation(label, start, count, lower, upper, 1.0, 1e6)


def test_the_frequency_iou_is_that_of_the_union_of_all_boxes_of_the_label() -> None:
    truth = carrier("LTE", -300e3, 300e3)
    assert compare.frequency_iou(truth, []) == 0
    assert compare.frequency_iou(truth, [truth]) == 1
    boxes = [carrier("LTE", -300e3, 0, 0, 5000), carrier("LTE", -100e3, 100e3, 9000), carrier("NR", 0, 300e3)]
    assert compare.frequency_iou(truth, boxes) == pytest.approx(400 / 600, abs=1e-4)
    assert compare.frequency_iou(truth, [carrier("LTE", -300e3, 500e3)]) == pytest.approx(600 / 800)
    neighbour = carrier("LTE", 300e3, 500e3)
    assert compare.frequency_iou(truth, [carrier("LTE", -300e3, 500e3)], [truth, neighbour]) == 1


def test_a_box_shorter_than_a_cell_still_has_an_area(recording: Recording) -> None:
    """20 ms are 512 cells of 78 samples."""
    truth = [carrier("LTE", 0.9998e9, 1.0002e9, 0, 20_000)]
    for start in range(30_000, 30_080, 7):
        (wrong, outside) = compare._misplaced(recording, [carrier("NR", 0.9998e9, 1.0002e9, start, 10)], truth)
        assert (wrong, outside) == (0, 1)
    beyond = [carrier("NR", 1.0011e9, 1.0012e9, 0, 10), carrier("NR", 0.9998e9, 1.0002e9, 50_000, 10)]
    assert compare._misplaced(recording, beyond, truth) == (None, None)
    row = {"recording": "r", "weathered": True, "carriers": [], "annotated": [], "found": [], "covered": {}}
    cells = compare._cells(row | {"cellular_boxes": 2, "wrong_share": None, "outside_share": None})
    assert cells[0] == "r\n(echoes and noise added)"
    assert cells[-1] == "2 boxes"


def test_recordings_that_cannot_be_compared_are_told_why(recording: Recording, tmp_path: Path) -> None:
    contract = find_model("spectrum-small").contract
    flat = {"core:sample_start": 0, "core:label": "LTE", "core:freq_lower_edge": 5.0, "core:freq_upper_edge": 5.0}
    with pytest.raises(RecordingError, match="annotation 'LTE' goes from 5 to 5 Hz"):
        compare._from_metadata(flat, recording)
    with pytest.raises(RecordingError, match="without a width"):
        list(weathered(dataclasses.replace(recording, metadata={"annotations": [flat]}), np.random.default_rng(1)))
    (capture,) = recording.captures
    hopping = dataclasses.replace(recording, captures=(capture, dataclasses.replace(capture, frequency=2e9)))
    with pytest.raises(RecordingError, match="several frequencies"):
        compare.compare(hopping, [], captures.InferEngine(lambda *_: np.empty(0, np.float32), (256, 256)), contract)
    with pytest.raises(RecordingError, match=r"--clean 'mad\*.sigmf-meta' is the name of no recording"):
        compare.main([recording.meta_path], clean=["mad*.sigmf-meta"])
    with pytest.raises(RecordingError, match=r"--leave-out 'lte' is"):
        Captures(recording.meta_path.parent, left_out=("lte",)).recordings()


def test_noise_is_scaled_by_what_the_annotations_cover_together(recording: Recording) -> None:
    (annotation,) = recording.metadata["annotations"]
    parts = [annotation | {"core:sample_start": start} for start in (0, 10_000)]
    parts.append(annotation | {"core:freq_upper_edge": 0.0})
    several = dataclasses.replace(recording, metadata={"annotations": parts})
    (once,), (more,) = (weathered(each, np.random.default_rng(1)) for each in (recording, several))
    np.testing.assert_array_equal(once.samples, more.samples)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """A clean LTE-like band of 400 kHz in 2 MHz, annotated, 20 ms."""
    rng = np.random.default_rng(3)
    spectrum = np.zeros(40_000, np.complex128)
    inside = np.abs(np.fft.fftfreq(40_000, 1 / 2e6)) < 200e3
    spectrum[inside] = rng.standard_normal((int(inside.sum()), 2)).view(np.complex128)[:, 0]
    samples = np.fft.ifft(spectrum * 200).astype(np.complex64)
    annotations = [carrier("LTE", -200e3, 200e3, 0, 40_000)]
    return open_recording(write_recording(tmp_path / "made", samples, 2e6, 1e9, annotations=annotations))


def test_wrong_and_outside_shares_are_of_the_area_labelled_lte_or_nr(recording: Recording) -> None:
    truth = [carrier("LTE", 0.9998e9, 1.0002e9, 0, 40_000)]
    boxes = [
        carrier("LTE", 0.9998e9, 1.0002e9, 0, 20_000),  # half right,
        carrier("NR", 0.9998e9, 1.0002e9, 20_000, 10_000),  # a quarter mislabelled,
        carrier("NR", 1.0004e9, 1.0008e9, 0, 10_000),  # a quarter where nothing is
    ]
    wrong, outside = compare._misplaced(recording, boxes, truth)
    assert wrong == pytest.approx(0.25, abs=0.01)
    assert outside == pytest.approx(0.25, abs=0.01)
    assert compare._misplaced(recording, [], truth) == (None, None)


def test_comparing_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "new" / "report.json"
    with pytest.raises(RecordingError, match="not every recording could be compared"):
        compare.main([tmp_path / "none.sigmf-meta"], out=report)
    assert "no metadata at" in capsys.readouterr().out.replace("\n", " ")
    assert "error" in json.loads(report.read_text())["recordings"][0]
    with pytest.raises(RecordingError, match="there is no recording to compare"):
        compare.main([tmp_path / "capture.rfvit.sigmf-meta"])


def test_clean_recordings_get_noise_of_the_ratio_that_is_named(recording: Recording) -> None:
    (block,) = weathered(recording, np.random.default_rng(1))
    assert (block.sample_start, block.sample_rate, block.frequency) == (0, 2e6, 1e9)
    power = np.abs(np.fft.fft(block.samples)) ** 2
    at = np.abs(np.fft.fftfreq(len(power), 1 / 2e6))
    noise = power[at > 250e3].mean()
    inside = power[at < 195e3].mean()
    assert 10 * np.log10(inside / noise - 1) == pytest.approx(SNR_DB, abs=0.6)
    with pytest.raises(RecordingError, match="no annotated carrier"):
        list(weathered(dataclasses.replace(recording, metadata={}), np.random.default_rng(1)))


def test_a_model_is_measured_on_recordings_and_summed_up(recording: Recording, place: Place, tmp_path: Path) -> None:
    trial, folder = Trial("file", "spectrum-small"), Captures(recording.meta_path.parent, clean=("ma*",))
    here = dataclasses.replace(place, out=tmp_path / "out")
    assert captures.answer_on_captures(trial, here, folder) == "captures: spectrum-small, seed 1"
    result = json.loads(here.result(trial, "captures").read_text())
    (row,) = result["recordings"]
    assert [each["label"] for each in row["carriers"]] == ["LTE"]
    assert result["frequency_iou"] == row["carriers"][0]["frequency_iou"]
    assert report.gather("captures", [trial], here, LABELS)[0].figures["found"] in ([0.0], [1.0])
    text = report.write("captures", report.gather("captures", [trial], here, LABELS), here, LABELS)
    assert f"| made | LTE {result['frequency_iou']:.2f} |" in text
    with pytest.raises(RecordingError, match="holds no SigMF recordings"):
        Captures(recording.meta_path.parent, left_out=("*",)).recordings()


def test_an_encoder_sees_recordings_where_a_trial_says_so(made: Place, recording: Recording) -> None:
    folder = recording.meta_path.parent
    there = dataclasses.replace(made, unlabelled=folder)
    trial = dataclasses.replace(MSM, unlabelled="recordings")
    encoder = encoder_of(trial, there)
    assert encoder is not None
    assert encoder.folder(there) != Encoder("region", 0.75, "textures", "patches").folder(there)
    make_encoder(encoder, there)
    assert open_windows(encoder.folder(there) / "windows" / "train").labels == ("background",)
    answer(trial, there)
    row = {"recording": "made", "carriers": [{"label": "LTE", "frequency_iou": 0.8}], "wrong_share": 0.0}
    write_json({"recordings": [row]}, there.result(trial, "captures"))  # the runtime has no windows as small as here
    rows = report.gather("recordings", [MSM, trial], there, ("background", "LTE", "NR"))
    assert [row.text for row in rows] == [
        "ViT, after MSM, unlabelled: recordings"
    ]  # no result of the other on captures
    assert {"found", "mIoU", "linear probe, mIoU"} <= rows[0].figures.keys()
    assert rows[0].text in report.write("recordings", rows, there, ("background", "LTE", "NR"))


def test_the_summary_takes_carriers_and_other_recordings_apart() -> None:
    def row(ious: list[float], wrong: float | None, boxes: int) -> dict[str, object]:
        carriers = [{"frequency_iou": iou} for iou in ious]
        return {"carriers": carriers, "wrong_share": wrong, "cellular_boxes": boxes}

    found = captures.summary([row([0.8, 0.5], 0.1, 4), row([0.9], None, 0), row([], 0.0, 2), row([], None, 0)])
    assert found == {"found": 0.6667, "frequency_iou": 0.7333, "wrong_share": 0.1, "false_recordings": 0.5}


# --- tables


def test_tables_are_markdown_and_lines_have_every_point(tmp_path: Path) -> None:
    assert mean_and_spread([0.2, 0.4]) == (0.3, 0.14142)
    assert mean_and_spread([0.2]) == (0.2, 0.0)
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    series = {"one": [(0.01, 0.3, 0.1), (1.0, 0.6, 0.0)], "two": [(1.0, 0.5, 0.0)]}
    draw_lines(series, tmp_path / "lines.png", title="t", x="share", y="mIoU", logarithmic=True)
    assert (tmp_path / "lines.png").read_bytes().startswith(b"\x89PNG")


def count_or_stop(folder: Path) -> str:
    """Leave a file, or be stopped as by Ctrl-C."""
    (folder / f"{len(list(folder.iterdir()))}").touch()
    raise KeyboardInterrupt


def test_a_worker_that_was_stopped_begins_no_other_trial(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_trials(count_or_stop, [tmp_path] * 4, 1)
    assert len(list(tmp_path.iterdir())) == 1


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from training.trials import run_trials\n"
        "def work(path):\n"
        "    Path(path).write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    run_trials(work, sys.argv[1:], 2)\n"
    )
    files = [tmp_path / "a", tmp_path / "b"]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen([sys.executable, script, *files], env=os.environ | {"PYTHONPATH": str(root)}) as parent:
        wait_for(lambda: all(file.is_file() and file.read_text() for file in files))
        parent.kill()
    workers = [int(file.read_text()) for file in files]
    wait_for(lambda: all(map(has_ended, workers)))


def has_ended(process: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{process}/status").read_text()  # not waited for yet
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
