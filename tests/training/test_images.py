# SPDX-License-Identifier: Apache-2.0
"""Pairs of images as data: the right way up, colours back to levels, labels never blended, no half pair in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rfvit_rt.errors import RecordingError
from rfvit_rt.spectrogram import SpectrogramSpec
from training import checkpoint, finetune
from training.config import FinetuneRecipe, Images, RecipeError, from_dict
from training.datasets import IGNORED, Windows, WindowWriter, open_windows
from training.images import _read, find_pairs, levels, write_pair
from training.prepare import labelled_folder

SPEC = SpectrogramSpec()
SPAN_DB = 70.0


def scene(side: int, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Levels in dB and labels, first row first in time: single spectra of noise, LTE all the time, NR late."""
    labels = np.zeros((side, side), np.uint8)
    labels[:, side // 8 : side // 4] = 255
    labels[side // 2 :, side // 2 : side * 3 // 4] = 127
    power = np.random.default_rng(seed).exponential(size=(side, side)) * np.where(labels, 1000.0, 1.0)
    return 10 * np.log10(power), labels


def save_pair(folder: Path, name: str, side: int = 128, seed: int = 1, colours: str = "viridis") -> None:
    """As the MathWorks example saves them: scaled from weakest to strongest, coloured, upside down."""
    db, labels = scene(side, seed)
    level = np.clip((db - db.max() + SPAN_DB) / SPAN_DB, 0, 1)
    coloured = (
        (matplotlib.colormaps[colours](np.round(level * 255).astype(int))[..., :3] * 255).round().astype(np.uint8)
    )
    for kind, image in (("images", coloured[::-1]), ("labels", labels[::-1])):
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def window_of(folder: Path, name: str, **options: Any) -> Windows:
    images = Images(**{"span_db": SPAN_DB, "colours": "viridis"} | options)
    pair = (folder / "images" / f"{name}.png", folder / "labels" / f"{name}.png")
    with WindowWriter(folder / "out", SPEC, tuple(images.classes)) as writer:
        write_pair(writer, pair, 0, images)
        writer.finish()
    return open_windows(folder / "out")


@pytest.mark.parametrize("side", [128, 256, 512])
def test_an_image_becomes_a_window_the_right_way_up(tmp_path: Path, side: int) -> None:
    save_pair(tmp_path, "a", side)
    windows = window_of(tmp_path, "a")
    assert windows.labels == ("background", "NR", "LTE")
    expected = np.zeros((256, 256), np.uint8)
    expected[:, 32:64] = 2
    expected[128:, 128:192] = 1
    np.testing.assert_array_equal(windows.masks[0], expected)
    db = windows.pictures[0].astype(np.float32) * SPEC.db_scale
    for label, decibels in ((0, 0.0), (1, 30.0), (2, 30.0)):
        # The mean of exponentially distributed power is the level; its own is within a decibel of the floor's estimate.
        mean = 10 * np.log10(np.mean(10 ** (db[expected == label] / 10)))
        assert mean == pytest.approx(decibels, abs=1.5)
    assert windows.bin_widths[0] == pytest.approx(2.0)  # 240 kHz: two octaves over 60


def test_colours_come_back_as_levels_by_map_table_and_luminance(tmp_path: Path) -> None:
    ramp = np.arange(256)[None, :]
    coloured = (matplotlib.colormaps["viridis"](ramp)[..., :3] * 255).round().astype(np.uint8)
    np.testing.assert_allclose(levels(coloured, "viridis"), ramp / 255, atol=1 / 128)
    table = tmp_path / "table.csv"
    np.savetxt(table, matplotlib.colormaps["viridis"](np.linspace(0, 1, 64))[:, :3], delimiter=",")
    np.testing.assert_allclose(levels(coloured, str(table)), ramp / 255, atol=1 / 60)
    brightness = levels(coloured, "luminance")[0]
    assert (np.diff(brightness) > -1 / 255).all()  # colours are rounded to 8 bits
    assert (brightness[0], brightness[-1]) == (0, 1)
    grey = np.array([[10, 20, 30]], np.uint8)
    np.testing.assert_allclose(levels(grey, "luminance"), [[0, 0.5, 1]])
    for wrong in ("no such map", str(tmp_path / "none.csv")):
        with pytest.raises(RecordingError, match="neither luminance"):
            levels(coloured, wrong)


def test_values_that_nobody_explained_are_ignored_pixels(tmp_path: Path) -> None:
    save_pair(tmp_path, "a")
    windows = window_of(tmp_path, "a", classes={"background": 0, "LTE": 255})
    mask = np.asarray(windows.masks[0])
    assert (mask[128:, 128:192] == IGNORED).all()
    assert (mask == IGNORED).mean() == pytest.approx(1 / 8)


def test_pairs_are_found_by_name_and_a_lonely_half_is_an_error(tmp_path: Path) -> None:
    save_pair(tmp_path / "train", "deep/a")
    save_pair(tmp_path / "train", "b")
    assert list(find_pairs(tmp_path)) == ["train/b.png", "train/deep/a.png"]
    (tmp_path / "train" / "labels" / "b.png").unlink()
    with pytest.raises(RecordingError, match=r"1 images below .* have no partner, train/b\.png among them"):
        find_pairs(tmp_path)
    with pytest.raises(RecordingError, match="there is no PNG"):
        find_pairs(tmp_path / "train" / "images")


def test_images_that_do_not_fit_are_reported_by_name(tmp_path: Path) -> None:
    train = tmp_path / "train"
    for name in ("good", "torn", "odd", "coloured", "other size"):
        save_pair(train, name)
    save_pair(tmp_path / "validation", "good too")
    (train / "images" / "torn.png").write_bytes(b"\x89PNG")
    save_pair(train, "odd", side=100)
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(train / "labels" / "coloured.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(train / "labels" / "other size.png")
    lines: list[str] = []
    recipe = from_dict({"images": {"colours": "viridis"}}, FinetuneRecipe)
    labelled_folder(tmp_path, tmp_path / "run", recipe, lines.append)
    text = "\n".join(lines)
    assert "torn.png: cannot read the image" in text
    assert "odd.png: " in text
    assert "one must be a multiple of the other" in text
    assert "coloured.png has 3 channels" in text
    assert "has (128, 128) pixels, its labels have (64, 64)" in text
    assert len(open_windows(tmp_path / "run" / "windows" / "train")) == 1


def test_pairs_that_leave_none_to_validate_on_are_refused_before_any_work(tmp_path: Path) -> None:
    save_pair(tmp_path, "only")
    recipe = from_dict({"images": {"colours": "viridis"}}, FinetuneRecipe)
    with pytest.raises(RecordingError, match=r"1 with labels leave none to validate on.*give two or more"):
        labelled_folder(tmp_path, tmp_path / "run", recipe, print)
    assert not (tmp_path / "run").exists()


def test_levels_are_not_places_in_a_palette(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([200, 200, 200, 0, 0, 0, 90, 90, 90])
    image.save(path)
    np.testing.assert_array_equal(_read(path, palette=True), [[0, 1], [2, 1]])
    grey = levels(_read(path, palette=False), "luminance")
    np.testing.assert_allclose(grey, [[1, 0], [0.45, 0]], atol=0.01)


def test_recipes_that_cannot_be_are_refused() -> None:
    with pytest.raises(RecipeError, match="two or more labels"):
        Images(classes={"background": 0, "LTE": 0})
    with pytest.raises(RecipeError, match="span_db"):
        Images(span_db=0)


def test_finetuning_on_image_pairs(tmp_path: Path) -> None:
    for seed in range(4):
        save_pair(tmp_path / "data", f"{seed}", seed=seed)
    recipe = tmp_path / "finetune.toml"
    recipe.write_text(
        "validate_every = 2\n[model]\nwidth = 24\ndepth = 1\nheads = 3\npatch = 32\n"
        "[optimisation]\nsteps = 2\nbatch_size = 2\nthreads = 1\ndevice = 'cpu'\n"
        f"[images]\nspan_db = {SPAN_DB}\n"
    )
    finetune.main(config=recipe, data=tmp_path / "data", out=tmp_path / "run")
    best = checkpoint.load(tmp_path / "run" / checkpoint.BEST)
    assert best.labels == ("background", "NR", "LTE")
    assert (best.provenance["train_windows"], best.provenance["validation_windows"]) == (3, 1)
