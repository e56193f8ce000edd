# SPDX-License-Identifier: Apache-2.0
"""The contract inside a model file: what goes in comes out, and nothing hostile gets by."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import tracemalloc
import zlib

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rfvit_rt.contract import (
    METADATA_KEY,
    Golden,
    ModelContract,
    block_means,
    quantise_picture,
    read_model,
)
from rfvit_rt.csi import CSISpec
from rfvit_rt.errors import ModelError
from rfvit_rt.spectrogram import SpectrogramSpec

SPEC = SpectrogramSpec(n_steps=32, n_bins=48, tile_overlap=16)
LABELS = ("background", "LTE", "NR")


def make_contract() -> ModelContract:
    rng = np.random.default_rng(1)
    golden = Golden(
        rng.integers(0, 256, (32, 48), np.uint8), 0.25, rng.dirichlet(np.ones(3), (2, 3)).astype(np.float16)
    )
    return ModelContract("small", "segmentation", LABELS, SPEC, golden, {"seed": 1}, {"mIoU": 0.5})


CONTRACT = make_contract()
DATA = json.loads(CONTRACT.to_json())


def write_onnx(path, metadata):
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())
    return path


def replaced(data, place, value):
    """Return a copy of nested dicts with one value changed; without it, where the value is ``...``."""
    key, *rest = place
    if not rest:
        return {k: v for k, v in data.items() if k != key} | ({} if value is ... else {key: value})
    return data | {key: replaced(data[key], rest, value)}


def places(data, before=()):
    for key, value in data.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from places(value, (*before, key))


# What is in provenance and metrics is free.
PLACES = [place for place in places(DATA) if len(place) == 1 or place[0] not in ("provenance", "metrics")]


# ---- what it promises ----


def test_comes_back_from_json_as_it_was():
    back = ModelContract.from_json(CONTRACT.to_json())
    for field in ("name", "task", "labels", "spectrogram", "provenance", "metrics"):
        assert getattr(back, field) == getattr(CONTRACT, field)
    np.testing.assert_array_equal(back.golden.picture, CONTRACT.golden.picture)
    np.testing.assert_array_equal(back.golden.output, CONTRACT.golden.output)
    assert back.golden.picture.dtype == np.uint8
    assert back.golden.output.dtype == np.float16
    assert back.golden.bin_width == CONTRACT.golden.bin_width


def test_is_read_from_an_onnx_file(tmp_path):
    path = write_onnx(tmp_path / "model.onnx", {METADATA_KEY: CONTRACT.to_json(), "other": "ignored"})
    model = read_model(path)
    assert model.path == path
    assert model.contract.name == "small"
    assert len(model.sha256) == 64
    path.write_bytes(path.read_bytes() + b"\x0a\x00")  # an empty field of the same meaning is another file
    assert read_model(path).sha256 != model.sha256


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_picture_survives_in_255_levels(seed):
    low, high = SPEC.db_min / SPEC.db_scale, SPEC.db_max / SPEC.db_scale
    picture = np.random.default_rng(seed).uniform(low, high, (32, 48)).astype(np.float32)
    picture[0, :2] = low, high
    stored = quantise_picture(picture, SPEC)
    assert stored[0, :2].tolist() == [0, 255]
    golden = Golden(stored, 0.25, CONTRACT.golden.output)
    pictures, bin_widths = golden.inputs(SPEC)
    assert pictures.dtype == bin_widths.dtype == np.float32
    assert pictures.shape == (1, 32, 48)
    assert bin_widths.tolist() == [0.25]
    np.testing.assert_allclose(pictures[0], picture, atol=(high - low) / 255 / 2 + 1e-6)
    np.testing.assert_array_equal(quantise_picture(pictures[0], SPEC), stored)


def test_block_means_average_16_by_16_pixels():
    probabilities = np.random.default_rng(2).random((32, 48, 3), np.float32)
    means = block_means(probabilities)
    assert means.shape == (2, 3, 3)
    for row, column in np.ndindex(2, 3):
        block = probabilities[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        np.testing.assert_allclose(means[row, column], block.reshape(-1, 3).mean(axis=0), rtol=1e-5)


def test_the_deviation_is_that_of_the_worst_block():
    output = np.repeat(np.repeat(CONTRACT.golden.output.astype(np.float32), 16, axis=0), 16, axis=1)
    assert CONTRACT.golden.deviation(output) == pytest.approx(0, abs=1e-6)
    output[16:, 32:, 1] += 0.25  # a whole block
    output[0, 0, 0] += 0.5  # one of a block's 256 pixels
    assert CONTRACT.golden.deviation(output) == pytest.approx(0.25, abs=1e-6)
    output[0, 0, 0] = np.nan
    assert math.isnan(CONTRACT.golden.deviation(output))


# ---- what it refuses ----


def test_refuses_a_file_that_is_missing(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read the model .*none\.onnx: No such file"):
        read_model(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"not a model", b"\xff" * 100, b"PK\x03\x04", b"\x08"])
def test_refuses_a_file_that_is_not_onnx(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx is not an ONNX file") as caught:
        read_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metadata", [{}, {"another": "{}"}])
def test_refuses_a_model_without_a_contract(tmp_path, metadata):
    with pytest.raises(ModelError, match="carries no rfvit contract; export it with"):
        read_model(write_onnx(tmp_path / "model.onnx", metadata))


def test_refuses_an_empty_file(tmp_path):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelError, match="carries no rfvit contract"):
        read_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_refuses_another_version(version):
    with pytest.raises(ModelError, match=rf"has version '?{version}'?, this release reads 1; upgrade"):
        ModelContract.from_json(json.dumps(DATA | {"version": version}))


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_refuses_a_contract_that_lacks_a_field(place):
    """Those that have defaults included: a default may change with the release, what a model was trained on may not."""
    with pytest.raises(ModelError, match="malformed"):
        ModelContract.from_json(json.dumps(replaced(DATA, place, ...)))


IMPOSSIBLE = [
    (("labels",), []),
    (("labels",), "LTE"),
    (("labels",), ["background", 1, 2]),
    (("labels",), ["LTE", "LTE", "NR"]),
    (("labels",), ["LTE", "NR\n", "other"]),
    (("labels",), ["LTE", "NR", "x" * 129]),
    (("labels",), [f"class {number}" for number in range(65)]),
    (("name",), "\ud800"),
    (("name",), None),
    (("name",), ""),
    (("task",), "regression"),
    (("provenance",), []),
    (("metrics",), "good"),
    (("spectrogram",), {}),
    (("spectrogram", "n_steps"), 0),
    (("spectrogram", "n_steps"), -1),
    (("spectrogram", "n_steps"), 32.0),
    (("spectrogram", "n_steps"), True),
    (("spectrogram", "n_steps"), 40),  # not a multiple of a golden block
    (("spectrogram", "n_bins"), 10**30),
    (("spectrogram", "n_bins"), "48"),
    (("spectrogram", "time_step"), 0),
    (("spectrogram", "time_step"), 1e308),
    (("spectrogram", "time_step"), 1e-8),
    (("spectrogram", "time_step"), "1"),
    (("spectrogram", "max_bin_width"), -240e3),
    (("spectrogram", "max_bin_width"), math.nan),
    (("spectrogram", "max_bin_width"), 10**400),
    (("spectrogram", "tile_overlap"), 48),  # tiles that never advance
    (("spectrogram", "tile_overlap"), -1),
    (("spectrogram", "floor_quantile"), 1.5),
    (("spectrogram", "floor_share"), 0),
    (("spectrogram", "floor_share"), 2),
    (("spectrogram", "floor_spread"), None),
    (("spectrogram", "dynamic_range"), math.inf),
    (("spectrogram", "db_scale"), 0),
    (("spectrogram", "db_max"), -10),  # no span
    (("spectrogram", "min_sample_rate"), 0),
    (("spectrogram", "max_sample_rate"), 1e6),  # below the least
    (("spectrogram", "surprise"), 1),
    (("golden",), []),
    (("golden", "bin_width"), "wide"),
    (("golden", "bin_width"), math.nan),
    (("golden", "bin_width"), [1]),
    (("golden", "picture"), ""),
    (("golden", "picture"), "!"),
    (("golden", "picture"), "é"),
    (("golden", "picture"), None),
    (("golden", "picture"), DATA["golden"]["output"]),
    (("golden", "output"), base64.b64encode(zlib.compress(bytes(37))).decode()),  # a byte too many
    (("golden", "output"), base64.b64encode(zlib.compress(bytes(35))).decode()),  # a byte too few
    (("golden", "output"), base64.b64encode(zlib.compress(np.full(18, np.nan, np.float16).tobytes())).decode()),
]


@pytest.mark.parametrize(("place", "value"), IMPOSSIBLE, ids=[f"{'.'.join(p)}={v!r:.12}" for p, v in IMPOSSIBLE])
def test_refuses_a_contract_that_cannot_be(place, value):
    with pytest.raises(ModelError, match="malformed") as caught:
        ModelContract.from_json(json.dumps(replaced(DATA, place, value)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_refuses_endless_nesting():
    with pytest.raises(ModelError, match="malformed"):
        ModelContract.from_json("[" * 200_000)


@pytest.mark.parametrize("steps", [32, 0, -1])
def test_unpacks_no_more_than_the_golden_pair_has(steps):
    bomb = base64.b64encode(zlib.compress(bytes(200_000_000), 9)).decode()  # 200 kB that become 200 MB
    data = replaced(replaced(DATA, ("golden", "picture"), bomb), ("spectrogram", "n_steps"), steps)
    text = json.dumps(replaced(data, ("spectrogram", "n_bins"), 1 if steps < 0 else 48))
    tracemalloc.start()
    with pytest.raises(ModelError, match="malformed"):
        ModelContract.from_json(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_refused(text):
    with pytest.raises(ModelError):
        ModelContract.from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([0, 1, 16, 10**18]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)


@settings(deadline=None)
@given(json_values)
def test_any_json_is_refused(value):
    with pytest.raises(ModelError):
        ModelContract.from_json(json.dumps(value))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), json_values)
@example(("golden", "bin_width"), 3.4028235677973366e38)  # a number, and finite, but infinite to the engines
def test_any_field_may_be_anything(place, value):
    """A contract is refused, or all that others rely on holds."""
    try:
        contract = ModelContract.from_json(json.dumps(replaced(DATA, place, value)))
    except ModelError:
        return
    spec = contract.spectrogram
    assert contract.name
    assert contract.task == "segmentation"
    assert all(isinstance(label, str) for label in contract.labels)
    assert isinstance(contract.provenance, dict)
    assert isinstance(contract.metrics, dict)
    for size in (spec.n_steps, spec.n_bins, spec.tile_overlap):
        assert type(size) is int
    for number in dataclasses.astuple(spec):
        assert math.isfinite(number)
    for rate in (spec.min_sample_rate, math.sqrt(spec.min_sample_rate * spec.max_sample_rate)):
        spec.check_sample_rate(rate)
        if spec.n_fft(rate) <= 2**20:
            assert spec.tile_starts(spec.n_fft(rate))[-1] == spec.n_fft(rate) - spec.n_bins
    assert contract.golden.inputs(spec)[0].shape == (1, 32, 48)
    assert np.isfinite(contract.golden.inputs(spec)[0]).all()


# ---- activity models ----

CSI_SPEC = CSISpec(n_steps=32, n_bins=48)


def activity_contract() -> ModelContract:
    picture = np.arange(32 * 48).reshape(32, 48).astype(np.uint8)
    golden = Golden(picture, 0.5, np.array([0.25, 0.75], np.float16))
    return ModelContract("moves", "activity", ("sit", "walk"), CSI_SPEC, golden)


def test_an_activity_contract_comes_back_as_it_went():
    back = ModelContract.from_json(activity_contract().to_json())
    assert (back.task, back.csi, back.output_shape) == ("activity", CSI_SPEC, (2,))
    np.testing.assert_array_equal(back.golden.output, np.array([0.25, 0.75], np.float16))
    assert back.golden.deviation(np.array([0.3, 0.7], np.float32)) == pytest.approx(0.05, abs=1e-3)


def test_golden_pictures_of_csi_span_the_range_of_their_spec():
    pictures, _ = activity_contract().golden.inputs(CSI_SPEC)
    assert pictures.min() == pytest.approx(CSI_SPEC.picture_min)
    assert pictures.max() == pytest.approx(CSI_SPEC.picture_max)


def test_a_model_says_which_command_it_is_for():
    with pytest.raises(ModelError, match="moves is for activity, not for spectrograms; use it with 'rfvit sense'"):
        _ = activity_contract().spectrogram
    with pytest.raises(ModelError, match="small is for segmentation, not for CSI; use it with 'rfvit segment'"):
        _ = CONTRACT.csi


def test_a_golden_output_must_have_the_shape_of_its_task():
    data = json.loads(activity_contract().to_json())
    with pytest.raises(ModelError, match="malformed"):
        ModelContract.from_json(json.dumps(data | {"labels": ["sit", "walk", "fall"]}))
    with pytest.raises(ModelError, match="malformed"):
        ModelContract.from_json(json.dumps(data | {"task": "segmentation"}))
