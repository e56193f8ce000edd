# SPDX-License-Identifier: Apache-2.0
"""Raw sample bytes to complex64 and back: the one definition, for files read here and in GNU Radio's Python.

Types are named as in SigMF (``ci16_le``). Full scale is ±1: a signed integer of b bits is divided by 2^(b-1);
an unsigned one is first moved down by 2^(b-1). This is the convention of sigmf-python's autoscale.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.errors import WireError

SUPPORTED = "ci8, cu8, and ci16, cu16, ci32, cu32, cf32, cf64 followed by _le or _be"

# SigMF's schema lets the byte order be left out; sigmf-python then takes the machine's, little-endian in practice.
_DATATYPE = re.compile(r"c([iu])(8|16|32)(_le|_be)?|c(f)(32|64)(_le|_be)?")


def item_size(datatype: str) -> int:
    """Bytes of one complex sample.

    Raises
    ------
    WireError
        If the type is not one of the complex SigMF types.
    """
    return 2 * _component(datatype).itemsize


def to_complex64(raw: bytes | bytearray | memoryview | NDArray[np.uint8], datatype: str) -> NDArray[np.complex64]:
    """Decode raw samples.

    Parameters
    ----------
    raw : bytes, bytearray, memoryview of bytes, or (n * item_size,) uint8
        Interleaved I and Q, contiguous; any alignment.
    datatype : str
        SigMF type of the samples.

    Returns
    -------
    (n,) complex64
        A new array, full scale ±1 for integers. Floats keep their values; those out of range become infinite.

    Raises
    ------
    WireError
        If the type is not supported or the length is not a whole number of samples.

    Examples
    --------
    >>> to_complex64(bytes([0, 64, 0x80, 0xFF]), "ci8")
    array([ 0.+0.5j      , -1.-0.0078125j], dtype=complex64)
    """
    component = _component(datatype)
    size = len(raw)
    if size % (2 * component.itemsize):
        raise WireError(
            f"{size} bytes are not a whole number of {datatype} samples of {2 * component.itemsize} bytes; "
            "check the sample type and whether the data was cut off"
        )
    if not size:
        return np.empty(0, np.complex64)
    values = np.frombuffer(raw, component)
    floats = _scale(values, component) if component.kind in "iu" else _narrow(values)
    return floats.view(np.complex64)


def from_complex64(samples: NDArray[np.complex64], datatype: str, full_scale: float = 1.0) -> bytes:
    """Encode samples: the inverse of :func:`to_complex64`.

    Parameters
    ----------
    samples : (n,) complex64
        Finite samples.
    datatype : str
        SigMF type to encode to.
    full_scale : float
        Amplitude of I or Q that becomes an integer type's full scale; what is beyond is clipped. Floats ignore it.

    Returns
    -------
    bytes
        Interleaved I and Q.

    Raises
    ------
    WireError
        If the type is not supported.
    ValueError
        If a sample that has to become an integer is not finite.
    """
    component = _component(datatype)
    floats = np.ascontiguousarray(samples, np.complex64).view(np.float32)
    if component.kind == "f":
        return floats.astype(component).tobytes()
    if not np.isfinite(floats).all():
        raise ValueError(f"NaN or infinite samples cannot be written as {datatype}; write cf32_le instead")
    half = 2.0 ** (8 * component.itemsize - 1)
    scaled = np.multiply(floats, half / full_scale, dtype=np.float64)
    scaled = np.clip(np.rint(scaled), -half, half - 1)
    return (scaled + _zero(component)).astype(component).tobytes()


def _component(datatype: str) -> np.dtype[Any]:
    """NumPy type of I or Q alone."""
    match = _DATATYPE.fullmatch(datatype)
    if match is None:
        what = "holds real, not complex samples" if datatype.startswith("r") else "is not a complex SigMF type"
        raise WireError(f"sample type {datatype!r} {what}; supported are {SUPPORTED}")
    kind, bits, order = match.group(1, 2, 3) if match.group(1) else match.group(4, 5, 6)
    return np.dtype(f"{'>' if order == '_be' else '<'}{kind}{int(bits) // 8}")


def _zero(component: np.dtype[Any]) -> float:
    """Code that stands for zero."""
    return 2.0 ** (8 * component.itemsize - 1) if component.kind == "u" else 0.0


def _scale(values: NDArray[Any], component: np.dtype[Any]) -> NDArray[np.float32]:
    # float32 holds 8 and 16 bits exactly; 32 bits are rounded once, at the end, which is why they pass through float64.
    wide = np.float64 if component.itemsize == 4 else np.float32
    step = wide(2.0 ** (1 - 8 * component.itemsize))
    floats = np.empty(values.shape, np.float32)
    if component.kind == "u":
        np.subtract(values, wide(_zero(component)), out=floats, dtype=wide, casting="same_kind")
        floats *= np.float32(step)
    else:
        np.multiply(values, step, out=floats, dtype=wide, casting="same_kind")
    return floats


def _narrow(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)
