# SPDX-License-Identifier: Apache-2.0
"""What engines hand to graphs that take raw IQ, and such a graph as something to build plans of.

Without torch, which makes the graph when asked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rfvit_rt import __version__
from rfvit_rt.contract import METADATA_KEY, ModelFile
from rfvit_rt.errors import EngineError

IQ_KEY = "rfvit.iq"


def iq_words(iq: NDArray[np.generic]) -> NDArray[np.generic]:
    """View IQ as :class:`rfvit_rt.iq_graph.IQGraph` takes it, without a copy where it is contiguous.

    Parameters
    ----------
    iq : (window, n) complex64, or (window, n, 2) int16
        Samples; integers as pairs of real and imaginary part, full scale 32768.

    Returns
    -------
    (window, n, 2) float32, or (window, n) int32
        A pair of int16 as one word, the real part in the lower half: TensorRT takes no int16.

    Raises
    ------
    ValueError
        If it is neither.
    """
    iq = np.ascontiguousarray(iq)
    if iq.dtype == np.complex64 and iq.ndim == 2:
        return iq.view(np.float32).reshape(*iq.shape, 2)
    if iq.dtype == np.int16 and iq.ndim == 3 and iq.shape[2] == 2:
        return iq.astype("<i2", copy=False).view("<i4")[..., 0]
    raise ValueError(f"IQ is (window, n) complex64 or (window, n, 2) int16, not {iq.shape} {iq.dtype}")


@dataclass(frozen=True)
class IQModel(ModelFile):
    """A model with its spectrogram in front.

    Its name and hash, under which plans are kept, are those of the model with rate and item type. The hash covers this
    release too, since that makes the graph.

    Attributes
    ----------
    model : ModelFile
        What it is made of.
    sample_rate : float
        In Hz.
    item_type : str
        One of :data:`rfvit_rt.iq_graph.ITEM_TYPES`.
    """

    model: ModelFile
    sample_rate: float
    item_type: str

    @classmethod
    def of(cls, model: ModelFile, sample_rate: float, item_type: str) -> IQModel:
        """Put a spectrogram in front of a model.

        Raises
        ------
        ModelError
            If it is no model of spectrograms.
        SpecMismatch
            If the spec does not fit the rate.
        """
        model.contract.spectrogram.check_sample_rate(sample_rate)
        identity = f"{model.sha256} {sample_rate!r} {item_type} {__version__}"
        name = f"{model.contract.name}-{item_type}-{sample_rate:.0f}"
        return cls(
            model.path,
            replace(model.contract, name=name),
            hashlib.sha256(identity.encode()).hexdigest(),
            model,
            sample_rate,
            item_type,
        )

    def to_onnx(self) -> bytes:
        """Make the ONNX graph; it takes some seconds. Inputs and outputs: :class:`rfvit_rt.iq_graph.IQGraph`.

        Raises
        ------
        EngineError
            If torch, which makes it, is not installed, or the item type is another one.
        ModelError
            If the model does not describe its network.
        SpecMismatch
            If the band is too wide.
        """
        try:
            from rfvit_rt.engines.pytorch import build_network
            from rfvit_rt.iq_graph import ITEM_TYPES, IQGraph, to_onnx
        except ImportError as error:
            raise EngineError(
                f"torch makes the graph that takes IQ, and cannot be imported ({error}); pip install -e '.[train]' in "
                "the repository"
            ) from error
        if self.item_type not in ITEM_TYPES:
            raise EngineError(f"the graph takes no {self.item_type}; choose {' or '.join(ITEM_TYPES)}")
        spec = self.contract.spectrogram
        graph = IQGraph(build_network(self.model), spec, self.sample_rate, self.item_type).eval()
        about = {"sample_rate": self.sample_rate, "item_type": self.item_type, "model_sha256": self.model.sha256}
        return to_onnx(graph, {METADATA_KEY: self.model.contract.to_json(), IQ_KEY: json.dumps(about)})
