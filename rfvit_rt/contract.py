# SPDX-License-Identifier: Apache-2.0
"""What a model file expects and emits: a record that lives as metadata inside the ONNX file."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rfvit_rt.csi import CSISpec
from rfvit_rt.errors import ModelError
from rfvit_rt.spectrogram import SpectrogramSpec
from rfvit_rt.wire.results import MAX_LABEL
from rfvit_rt.wire.summary import MAX_LABELS

MAX_NAME = MAX_LABEL  # characters, of a model's name as of a label
METADATA_KEY = "rfvit.contract"
FORMAT_VERSION = 1
Spec = SpectrogramSpec | CSISpec
_SPECS: dict[str, tuple[str, type[Spec]]] = {
    "segmentation": ("spectrogram", SpectrogramSpec),
    "activity": ("csi", CSISpec),
}
_COMMANDS = {"segmentation": "rfvit segment", "activity": "rfvit sense"}
TASKS = tuple(_SPECS)
_GOLDEN_BLOCK = 16  # pixels on a side over which golden masks are averaged
_GOLDEN_LEVELS = 255


@dataclass(frozen=True, eq=False)
class Golden:
    """One input and the output it must give, so that an engine can prove itself before it is believed.

    Attributes
    ----------
    picture : (n_steps, n_bins) uint8
        Picture values from the spec's ``picture_min`` to ``picture_max``, in 255 levels.
    bin_width : float
        The second input, as ``bin_width_feature`` of :mod:`rfvit_rt.spectrogram` or :mod:`rfvit_rt.csi` gives it.
    output : (n_steps / 16, n_bins / 16, class) or (class,) float16
        Class probabilities; those of pixels are averaged over blocks of 16 × 16.
    """

    picture: NDArray[np.uint8]
    bin_width: float
    output: NDArray[np.float16]

    def inputs(self, spec: Spec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Model inputs: (1, n_steps, n_bins) float32 picture and (1,) float32 bin width."""
        span = spec.picture_max - spec.picture_min
        levels = self.picture.astype(np.float32) / np.float32(_GOLDEN_LEVELS)
        values = levels * np.float32(span) + np.float32(spec.picture_min)
        return values[None], np.array([self.bin_width], np.float32)

    def deviation(self, probabilities: NDArray[np.float32]) -> float:
        """Largest difference, 0 to 1, from an engine's output for this input, in the contract's ``output_shape``."""
        return float(np.max(np.abs(condense(probabilities) - self.output.astype(np.float32))))


@dataclass(frozen=True)
class ModelContract:
    """A model's promise.

    Attributes
    ----------
    name : str
        Name under which `rfvit models` lists it.
    task : str
        ``segmentation`` of spectrograms, or ``activity`` from CSI.
    labels : tuple of str
        Class names; the first is the background in segmentation.
    spec : SpectrogramSpec or CSISpec
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
    spec: Spec
    golden: Golden
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def spectrogram(self) -> SpectrogramSpec:
        """The spec of a segmentation model; raises :class:`ModelError` where it is another kind."""
        if not isinstance(self.spec, SpectrogramSpec):
            raise ModelError(self._other_use("spectrograms"))
        return self.spec

    @property
    def csi(self) -> CSISpec:
        """The spec of an activity model; raises :class:`ModelError` where it is another kind."""
        if not isinstance(self.spec, CSISpec):
            raise ModelError(self._other_use("CSI"))
        return self.spec

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the probabilities for one picture: (n_steps, n_bins, class), or (class,) for activities."""
        classes = len(self.labels)
        return (classes,) if self.task == "activity" else (self.spec.n_steps, self.spec.n_bins, classes)

    def _other_use(self, wanted: str) -> str:
        return (
            f"the model {self.name} is for {self.task}, not for {wanted}; use it with '{_COMMANDS[self.task]}', "
            "or choose another: 'rfvit models' lists those that ship"
        )

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
                _SPECS[self.task][0]: dataclasses.asdict(self.spec),
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
            if data["task"] not in TASKS:
                raise ValueError("a model has a task of " + ", ".join(TASKS))
            spec = _read_spec(data)
            labels = tuple(data["labels"])
            _check_fields(data, labels)
            blocks: tuple[int, ...] = (len(labels),)
            if isinstance(spec, SpectrogramSpec):
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


def quantise_picture(values: NDArray[np.float32], spec: Spec) -> NDArray[np.uint8]:
    """Picture values as :class:`Golden` stores them."""
    span = spec.picture_max - spec.picture_min
    return np.round((values - spec.picture_min) / span * _GOLDEN_LEVELS).astype(np.uint8)


def condense(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """An output as :class:`Golden` stores it: masks as block means, scores of a whole picture as they are."""
    return block_means(probabilities) if probabilities.ndim == 3 else probabilities


def block_means(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average (step, bin, class) probabilities over blocks of 16 × 16 pixels."""
    steps, bins, classes = probabilities.shape
    blocks = probabilities.reshape(steps // _GOLDEN_BLOCK, _GOLDEN_BLOCK, bins // _GOLDEN_BLOCK, _GOLDEN_BLOCK, classes)
    return blocks.mean(axis=(1, 3))  # (step block, bin block, class)


def _read_spec(data: dict[str, Any]) -> Spec:
    name, kind = _SPECS[data["task"]]
    spec = kind(**data[name])
    if data[name].keys() != dataclasses.asdict(spec).keys():
        raise ValueError(f"{name} lacks fields")  # defaults may change, what a model was trained on may not
    if isinstance(spec, SpectrogramSpec):
        _check_spectrogram(spec)
    return spec


def _check_spectrogram(spec: SpectrogramSpec) -> None:
    if spec.tile_overlap >= spec.n_bins:
        raise ValueError(f"tiles of {spec.n_bins} bins that share {spec.tile_overlap} do not cover a wide band")
    if spec.n_steps % _GOLDEN_BLOCK or spec.n_bins % _GOLDEN_BLOCK:
        raise ValueError(f"a picture of {spec.n_steps} x {spec.n_bins} has no whole blocks of {_GOLDEN_BLOCK}")


def _check_fields(data: dict[str, Any], labels: tuple[Any, ...]) -> None:
    if type(data["name"]) is not str or not data["name"]:
        raise ValueError("a model has a name")
    if type(data["labels"]) is not list or len(set(labels)) < 2 or len(set(labels)) < len(labels):
        raise ValueError("labels are two or more different names")
    if not all(type(label) is str and label for label in labels):
        raise ValueError("labels are names")
    if len(labels) > MAX_LABELS or not all(len(n) <= MAX_NAME and n.isprintable() for n in (data["name"], *labels)):
        raise ValueError(
            f"a model has at most {MAX_LABELS} labels; these and its name have at most {MAX_NAME} printable characters"
        )
    if type(data["provenance"]) is not dict or type(data["metrics"]) is not dict:
        raise ValueError("provenance and metrics are objects")
    bin_width = data["golden"]["bin_width"]
    if type(bin_width) not in (int, float) or not abs(bin_width) <= float(np.finfo(np.float32).max):
        raise ValueError("the golden bin width is a number that float32 holds")


def _pack(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def _unpack(text: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = zlib.decompressobj().decompress(base64.b64decode(text), size + 1)
    array = np.frombuffer(data, dtype).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError("golden values are not all numbers")
    return array
