# SPDX-License-Identifier: Apache-2.0
"""Inference engines: one interface, one file for each runtime, and a proof before any of them is believed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.contract import ModelFile, block_means
from rfvit_rt.errors import EngineError, ModelError
from rfvit_rt.spectrogram import SpectrogramSpec, bin_width_feature, join_tiles, spectrogram, tiles

PICTURE_TOLERANCE_DB = 0.02  # of a picture that an engine makes itself, from the one that the processor makes
_NO_IQ = "the {} engine takes pictures, not IQ; leave --front-end gpu out, or use --engine torch"


class Engine(Protocol):
    """A model, ready to run; a context manager that frees it.

    One thread at a time may use an engine.

    Attributes
    ----------
    name : str
        As :func:`load_engine` knows it.
    precision : str
        Number format that it computes in, for example ``f32``.
    description : str
        Runtime, version, device and precision, for people.
    input_shape : tuple of int
        (n_steps, n_bins) of a picture.
    golden_tolerance : float
        Largest deviation from the golden output, as :meth:`rfvit_rt.contract.Golden.deviation` measures it, that its
        precision explains.
    takes_iq : bool
        Whether it makes the pictures itself, if asked to: :meth:`infer_iq` and :meth:`mask_iq`.
    on_gpu : bool
        Whether it runs on a GPU.
    """

    name: str
    precision: str
    description: str
    input_shape: tuple[int, int]
    golden_tolerance: float
    takes_iq: bool = False
    on_gpu: bool = False

    def infer(self, pictures: NDArray[np.float32], bin_widths: NDArray[np.float32]) -> NDArray[np.float32]:
        """Label every pixel of a spectrogram, or a picture of CSI as a whole.

        A picture's result is the same, bit for bit, whatever else is in its batch: a recording gives the same answer
        read from a file as arriving live.

        Parameters
        ----------
        pictures : (batch, n_steps, n_bins) float32
            As :func:`rfvit_rt.spectrogram.tiles` cuts them or :func:`rfvit_rt.csi.csi_picture` makes them; one or more.
        bin_widths : (batch,) float32
            As ``bin_width_feature`` of the same module gives them.

        Returns
        -------
        (batch, n_steps, n_bins, class) or (batch, class) float32
            Probabilities, which sum to one over the classes. The array is the caller's own; no engine reuses it.
        """

    def infer_iq(self, iq: NDArray[Any], sample_rate: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Make the pictures of full windows and label them, both where the engine runs.

        Parameters
        ----------
        iq : (window, n) complex64, or (window, n, 2) int16
            Samples of ``spec.window_length(sample_rate)`` each; integers in pairs, full scale 32768. They must be
            finite: results of others mean nothing.
        sample_rate : float
            In Hz. The first call at a rate prepares for it, which takes seconds on a GPU.

        Returns
        -------
        pictures : (window, n_steps, n_fft) float32
            As :func:`rfvit_rt.spectrogram.spectrogram` makes them.
        probabilities : (window, n_steps, n_fft, class) float32
            The tiles of a wide band put together, as :func:`rfvit_rt.spectrogram.join_tiles` does it.

        Raises
        ------
        EngineError
            If the engine takes pictures alone.
        """
        raise EngineError(_NO_IQ.format(self.name))

    def mask_iq(self, iq: NDArray[Any], sample_rate: float) -> NDArray[np.uint8]:
        """As :meth:`infer_iq`, but give the most probable class of every pixel: (window, n_steps, n_fft)."""
        raise EngineError(_NO_IQ.format(self.name))

    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Entry:
    """Where an engine lives, and what it needs installed."""

    module: str
    class_name: str
    install: str


_ENGINES = {
    "openvino": _Entry("rfvit_rt.engines.openvino", "OpenVINOEngine", "pip install -e . in the repository"),
    "pytorch": _Entry("rfvit_rt.engines.pytorch", "PyTorchEngine", "pip install -e '.[train]' in the repository"),
    "tensorrt": _Entry(
        "rfvit_rt.engines.tensorrt",
        "TensorRTEngine",
        "an NVIDIA GPU with its driver, and pip install -e '.[tensorrt]' in the repository",
    ),
}
_ALIASES = {"torch": "pytorch"}


def engine_names() -> tuple[str, ...]:
    """Names that :func:`load_engine` takes, but for aliases; the first is the default."""
    return tuple(_ENGINES)


def load_engine(
    model: ModelFile,
    name: str = "openvino",
    *,
    precision: str | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> Engine:
    """Open a model in an engine, and have the engine prove itself on the model's golden pair.

    Parameters
    ----------
    model : ModelFile
        From :func:`rfvit_rt.contract.read_model`.
    name : str
        One of :func:`engine_names`; ``torch`` is ``pytorch`` too. :func:`rfvit_rt.engines.choice.choose_engine` takes
        the fastest.
    precision : str, optional
        ``f32``, ``f16`` or ``bf16``, as the engine has them; its best for this machine where not given.
    threads : int, optional
        Processor threads to use; as many as the runtime likes where not given.
    device : str, optional
        In the engine's own terms, for example ``cuda:1``; the engine's own choice where not given.

    Raises
    ------
    EngineError
        If there is no such engine, it is not installed, or cannot do here what was asked for.
    ModelError
        If the model cannot be run, or its golden output is not reproduced.

    Examples
    --------
    >>> from rfvit_rt.models import default_model
    >>> with load_engine(default_model()) as engine:  # doctest: +SKIP
    ...     probabilities = engine.infer(pictures, bin_widths)
    """
    module = import_engine(name)
    engine_class = getattr(module, _ENGINES[_ALIASES.get(name, name)].class_name)
    engine: Engine = engine_class(model, precision=precision, threads=threads, device=device)
    try:
        prove(engine, model)
    except BaseException:
        engine.close()
        raise
    return engine


def import_engine(name: str) -> ModuleType:
    """Import the module of an engine, and with it the runtime that it is for.

    Raises
    ------
    EngineError
        If there is no such engine, or its runtime is not installed or finds no driver.
    """
    name = _ALIASES.get(name, name)
    if name not in _ENGINES:
        names = {engine: alias for alias, engine in _ALIASES.items()}  # as users know them
        known = ", ".join(names.get(engine, engine) for engine in _ENGINES)
        raise EngineError(f"there is no engine '{name}'; choose one of {known}")
    entry = _ENGINES[name]
    try:
        return import_module(entry.module)
    except ImportError as error:
        raise EngineError(f"the {name} engine cannot be loaded ({error}); it needs {entry.install}") from error


def prove(engine: Engine, model: ModelFile) -> float:
    """Run a model's golden pair through an engine.

    Returns
    -------
    float
        The deviation, at most ``engine.golden_tolerance``.

    Raises
    ------
    ModelError
        If the engine does not reproduce the golden output.
    """
    contract = model.contract
    output = engine.infer(*contract.golden.inputs(contract.spec))
    expected = (1, *contract.output_shape)
    if output.shape != expected:
        raise ModelError(
            f"{model.path} gives an output of {output.shape}, its contract says {expected}; export the model again"
        )
    deviation = contract.golden.deviation(output[0])
    if not deviation <= engine.golden_tolerance:  # also where the deviation is not a number
        raise ModelError(
            f"{model.path} deviates from its golden output by {deviation:.3g} on {engine.description}, "
            f"{engine.golden_tolerance:g} is allowed; fetch the model again, or try --precision f32 or another --engine"
        )
    return deviation


def prove_iq(engine: Engine, spec: SpectrogramSpec, sample_rate: float, item_type: str = "cf32_le") -> float:
    """Have an engine make a picture of IQ itself, and hold it and its labels to what the processor makes of it.

    Parameters
    ----------
    engine : Engine
        It takes IQ, and has proved itself on the golden picture.
    spec : SpectrogramSpec
    sample_rate : float
        In Hz.
    item_type : str
        Of the samples that it is given: ``cf32_le`` or ``ci16_le``.

    Returns
    -------
    float
        Largest deviation of a picture value, in dB; at most `PICTURE_TOLERANCE_DB`.

    Raises
    ------
    ModelError
        If picture or labels deviate by more than its precision explains.
    """
    given = samples = _trial_iq(spec, sample_rate)
    if item_type == "ci16_le":
        given = np.round(samples.view(np.float32).reshape(-1, 2) * 2000).astype(np.int16)
        samples = (given.astype(np.float32) / 2**15).view(np.complex64)[:, 0]
    expected = spectrogram(samples, sample_rate, spec)
    cut = tiles(expected, spec)
    widths = np.full(len(cut), bin_width_feature(sample_rate, spec), np.float32)
    labelled = join_tiles(engine.infer(cut, widths), expected.shape[1], spec)
    (picture,), (probabilities,) = engine.infer_iq(given[None], sample_rate)
    level = float(np.max(np.abs(picture - expected))) * spec.db_scale
    deviation = float(np.max(np.abs(block_means(probabilities) - block_means(labelled))))
    if not (level <= PICTURE_TOLERANCE_DB and deviation <= engine.golden_tolerance):  # also where they are no numbers
        raise ModelError(
            f"pictures made at {sample_rate / 1e6:g} MS/s on {engine.description} deviate by {level:.3g} dB and their "
            f"labels by {deviation:.3g}, {PICTURE_TOLERANCE_DB:g} dB and {engine.golden_tolerance:g} are allowed; "
            "leave --front-end gpu out"
        )
    return level


def _trial_iq(spec: SpectrogramSpec, sample_rate: float) -> NDArray[np.complex64]:
    """A window of noise with a strong tone in its second half, where numbers of too few bits show."""
    count = spec.window_length(sample_rate)
    noise = np.random.default_rng(1).standard_normal((count, 2), np.float32).view(np.complex64)[:, 0]
    tone = 10 * np.exp(2j * np.pi * 0.1234 * np.arange(count - count // 2))
    noise[count // 2 :] += tone.astype(np.complex64)
    return noise
