# SPDX-License-Identifier: Apache-2.0
"""What a model file expects and emits: a record that lives as metadata inside the ONNX file."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rfvit_rt.errors import ModelError
from rfvit_rt.spectrogram import SpectrogramSpec

METADATA_KEY = "rfvit.contract"
FORMAT_VERSION = 1
TASKS = ("segmentation",)
_GOLDEN_BLOCK = 16  # pixels on a side over which golden outputs are averaged
_GOLDEN_LEVELS = 255


@dataclass(frozen=True, eq=False)
class Golden:
    """One input and the output it must give, so that an engine can prove itself before it is believed.

    Attributes
    ----------
    picture : (n_steps, n_bins) uint8
        Picture values from ``db_min`` to ``db_max``, in 255 levels.
    bin_width : float
        The second input, as :func:`rfvit_rt.spectrogram.bin_width_feature` gives it.
    output : (n_steps / 16, n_bins / 16, class) float16
        Class probabilities, averaged over blocks of 16 × 16 pixels.
    """

    picture: NDArray[np.uint8]
    bin_width: float
    output: NDArray[np.float16]

    def inputs(self, spec: SpectrogramSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Model inputs: (1, n_steps, n_bins) float32 picture and (1,) float32 bin width."""
        span = (spec.db_max - spec.db_min) / spec.db_scale
        levels = self.picture.astype(np.float32) / np.float32(_GOLDEN_LEVELS)
        values = levels * np.float32(span) + np.float32(spec.db_min / spec.db_scale)
        return values[None], np.array([self.bin_width], np.float32)

    def deviation(self, probabilities: NDArray[np.float32]) -> float:
        """Largest difference, 0 to 1, of any block's mean in an engine's (n_steps, n_bins, class) output."""
        return float(np.max(np.abs(block_means(probabilities) - self.output.astype(np.float32))))


@dataclass(frozen=True)
class ModelContract:
    """A model's promise.

    Attributes
    ----------
    name : str
        Name under which `rfvit models` lists it.
    task : str
        ``segmentation``.
    labels : tuple of str
        Class names; the first is the background.
    spectrogram : SpectrogramSpec
        How the input is made.
    golden : Golden
        Proof for engines.
    provenance : dict
        How the model came to be: recipe, seeds, data, software.
    metrics : dict
        Figures measured on held-out data.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    spectrogram: SpectrogramSpec
    golden: Golden
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Serialise; the inverse of :meth:`from_json`."""
        golden = {
            "picture": _pack(self.golden.picture),
            "bin_width": self.golden.bin_width,
            "output": _pack(self.golden.output),
        }
        return json.dumps(
            {
                "version": FORMAT_VERSION,
                "name": self.name,
                "task": self.task,
                "labels": self.labels,
                "spectrogram": dataclasses.asdict(self.spectrogram),
                "golden": golden,
                "provenance": self.provenance,
                "metrics": self.metrics,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ModelError
            If a field is missing, unknown or malformed, or the version is a newer one.
        """
        try:
            data = json.loads(text)
            if data["version"] != FORMAT_VERSION:
                raise ModelError(
                    f"the model's contract has version {data['version']!r:.40}, this release reads {FORMAT_VERSION}; "
                    "upgrade rfvit-rt"
                )
            spec = SpectrogramSpec(**data["spectrogram"])
            labels = tuple(data["labels"])
            _check_fields(data, labels, spec)
            blocks = (spec.n_steps // _GOLDEN_BLOCK, spec.n_bins // _GOLDEN_BLOCK, len(labels))
            golden = Golden(
                _unpack(data["golden"]["picture"], np.uint8, (spec.n_steps, spec.n_bins)),
                data["golden"]["bin_width"],
                _unpack(data["golden"]["output"], np.float16, blocks),
            )
            return cls(data["name"], data["task"], labels, spec, golden, data["provenance"], data["metrics"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, zlib.error) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"the model's contract is malformed ({reason}); export the model again") from error


@dataclass(frozen=True)
class ModelFile:
    """A model file on disk: its path, its contract, and the SHA-256 of its bytes."""

    path: Path
    contract: ModelContract
    sha256: str


def read_model(path: Path) -> ModelFile:
    """Read and check the contract of an ONNX file.

    Raises
    ------
    ModelError
        If the file is missing, not ONNX, or carries no contract.
    """
    try:
        data = path.read_bytes()
        metadata = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    except OSError as error:
        raise ModelError(
            f"cannot read the model {path}: {error.strerror}; 'rfvit models' lists those that ship"
        ) from error
    except Exception as error:  # protobuf's errors share no public base
        raise ModelError(f"{path} is not an ONNX file ({error})") from error
    if METADATA_KEY not in metadata:
        raise ModelError(f"{path} carries no rfvit contract; export it with 'python -m training.export'")
    return ModelFile(path, ModelContract.from_json(metadata[METADATA_KEY]), hashlib.sha256(data).hexdigest())


def quantise_picture(values: NDArray[np.float32], spec: SpectrogramSpec) -> NDArray[np.uint8]:
    """Picture values as :class:`Golden` stores them."""
    span = (spec.db_max - spec.db_min) / spec.db_scale
    return np.round((values - spec.db_min / spec.db_scale) / span * _GOLDEN_LEVELS).astype(np.uint8)


def block_means(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average (step, bin, class) probabilities over blocks of 16 × 16 pixels."""
    steps, bins, classes = probabilities.shape
    blocks = probabilities.reshape(steps // _GOLDEN_BLOCK, _GOLDEN_BLOCK, bins // _GOLDEN_BLOCK, _GOLDEN_BLOCK, classes)
    return blocks.mean(axis=(1, 3))  # (step block, bin block, class)


def _check_fields(data: dict[str, Any], labels: tuple[Any, ...], spec: SpectrogramSpec) -> None:
    if data["spectrogram"].keys() != dataclasses.asdict(spec).keys():
        raise ValueError("the spectrogram lacks fields")  # defaults may change, what a model was trained on may not
    if spec.tile_overlap >= spec.n_bins:
        raise ValueError(f"tiles of {spec.n_bins} bins that share {spec.tile_overlap} do not cover a wide band")
    if spec.n_steps % _GOLDEN_BLOCK or spec.n_bins % _GOLDEN_BLOCK:
        raise ValueError(f"a picture of {spec.n_steps} x {spec.n_bins} has no whole blocks of {_GOLDEN_BLOCK}")
    if type(data["name"]) is not str or not data["name"] or data["task"] not in TASKS:
        raise ValueError("a model has a name, and a task of " + ", ".join(TASKS))
    if type(data["labels"]) is not list or len(set(labels)) < 2 or len(set(labels)) < len(labels):
        raise ValueError("labels are two or more different names")
    if not all(type(label) is str and label for label in labels):
        raise ValueError("labels are names")
    if type(data["provenance"]) is not dict or type(data["metrics"]) is not dict:
        raise ValueError("provenance and metrics are objects")
    bin_width = data["golden"]["bin_width"]
    if type(bin_width) not in (int, float) or not math.isfinite(bin_width):
        raise ValueError("the golden bin width is a number")


def _pack(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def _unpack(text: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = zlib.decompressobj().decompress(base64.b64decode(text), size + 1)
    array = np.frombuffer(data, dtype).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError("golden values are not all numbers")
    return array
