# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sigmf
from hypothesis import given
from hypothesis import strategies as st

from rfvit_rt.errors import WireError
from rfvit_rt.wire.samples import from_complex64, item_size, to_complex64

INTEGERS = ["ci8", "cu8"] + [f"c{kind}{bits}_{order}" for kind in "iu" for bits in (16, 32) for order in ("le", "be")]
FLOATS = [f"cf{bits}_{order}" for bits in (32, 64) for order in ("le", "be")]
REPOSITORY = Path(__file__).resolve().parents[2]


def random_bytes(datatype: str, count: int) -> bytes:
    rng = np.random.default_rng(count)
    if datatype in FLOATS:
        return rng.normal(size=2 * count).astype(sigmf.sigmffile.dtype_info(datatype)["component_dtype"]).tobytes()
    return rng.bytes(count * item_size(datatype))


def read_by_sigmf(raw: bytes, datatype: str) -> np.ndarray:
    recording = sigmf.SigMFFile(global_info={"core:datatype": datatype})
    recording.set_data_file(data_buffer=io.BytesIO(raw), skip_checksum=True)
    return recording.read_samples()


@pytest.mark.parametrize("datatype", INTEGERS + FLOATS)
def test_same_values_as_sigmf_python(datatype: str) -> None:
    raw = random_bytes(datatype, 1001)
    samples = to_complex64(raw, datatype)
    assert samples.dtype == np.complex64
    assert samples.shape == (1001,)
    # sigmf-python rounds 32-bit unsigned values to float32 before it takes the zero off; we round once, after it.
    tolerance = 2.0**-23 if datatype.startswith("cu32") else 0.0
    np.testing.assert_allclose(samples.real, read_by_sigmf(raw, datatype).real, rtol=0, atol=tolerance)
    np.testing.assert_allclose(samples.imag, read_by_sigmf(raw, datatype).imag, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("datatype", "raw", "expected"),
    [
        ("ci8", "80 7f", -1 + 127j / 128),
        ("cu8", "00 80", -1 + 0j),
        ("ci16_le", "0080 ff7f", -1 + 32767j / 32768),
        ("ci16_be", "8000 0001", -1 + 1j / 32768),
        ("cu16_be", "0000 8000", -1 + 0j),
        ("ci32_le", "00000080 00000040", -1 + 0.5j),
        ("cu32_le", "00000000 01000080", -1 + 2.0**-31 * 1j),
        ("cf32_be", "3f800000 c0000000", 1 - 2j),
    ],
)
def test_full_scale_and_byte_order(datatype: str, raw: str, expected: complex) -> None:
    assert to_complex64(bytes.fromhex(raw), datatype)[0] == np.complex64(expected)


def test_byte_order_may_be_left_out() -> None:
    raw = random_bytes("ci16_le", 10)
    np.testing.assert_array_equal(to_complex64(raw, "ci16"), to_complex64(raw, "ci16_le"))


def test_float_bits_survive() -> None:
    raw = np.array([0x7FC00001, 0xFF800000, 0x7FA00001, 0x80000000], "<u4").tobytes()
    assert to_complex64(raw, "cf32_le").tobytes() == raw


def test_doubles_beyond_float_range_become_infinite_in_silence() -> None:
    samples = to_complex64(np.array([1e300, -1e300]).tobytes(), "cf64_le")
    assert samples.real[0] == np.inf
    assert samples.imag[0] == -np.inf


@pytest.mark.parametrize("datatype", INTEGERS + FLOATS)
def test_any_buffer_at_any_alignment(datatype: str) -> None:
    raw = random_bytes(datatype, 5)
    expected = to_complex64(raw, datatype)
    shifted = np.frombuffer(b"x" + raw, np.uint8)[1:]
    for same in (shifted, bytearray(raw), memoryview(b"x" + raw)[1:]):
        np.testing.assert_array_equal(to_complex64(same, datatype), expected)


def test_result_does_not_follow_its_buffer() -> None:
    raw = bytearray(8)
    samples = to_complex64(raw, "cf32_le")
    raw[:] = b"\xff" * 8
    assert samples[0] == 0
    assert to_complex64(b"", "ci16_be").shape == (0,)


@pytest.mark.parametrize("datatype", ["rf32_le", "ri8", "cf16_le", "ci64_le", "ci8_me", "CI8", "xci8", "cf32_lex", ""])
def test_other_types_are_refused(datatype: str) -> None:
    with pytest.raises(WireError, match="supported are ci8"):
        to_complex64(bytes(16), datatype)


@given(raw=st.binary(max_size=64), datatype=st.sampled_from(INTEGERS + FLOATS))
def test_any_bytes_decode_or_are_refused(raw: bytes, datatype: str) -> None:
    if len(raw) % item_size(datatype):
        with pytest.raises(WireError, match="not a whole number"):
            to_complex64(raw, datatype)
    else:
        assert len(to_complex64(raw, datatype)) == len(raw) // item_size(datatype)


@given(raw=st.binary(max_size=64), datatype=st.sampled_from([name for name in INTEGERS if "32" not in name]))
def test_encoding_inverts_decoding(raw: bytes, datatype: str) -> None:
    raw = raw[: len(raw) - len(raw) % item_size(datatype)]
    assert from_complex64(to_complex64(raw, datatype), datatype) == raw


@pytest.mark.parametrize("datatype", INTEGERS)
def test_encoding_scales_rounds_and_clips(datatype: str) -> None:
    step = 2.0 ** -(4 * item_size(datatype) - 1)
    samples = np.array([2 - 2j, 0.5 + 1j, -9 + 0j], np.complex64)
    back = to_complex64(from_complex64(samples, datatype, full_scale=2.0), datatype)
    np.testing.assert_allclose(back.real, [1, 0.25, -1], rtol=0, atol=step)
    np.testing.assert_allclose(back.imag, [-1, 0.5, 0], rtol=0, atol=step)


def test_encoding_refuses_nan_for_integers_only() -> None:
    samples = np.array([complex("nan")], np.complex64)
    assert np.isnan(to_complex64(from_complex64(samples, "cf64_be"), "cf64_be")[0])
    with pytest.raises(ValueError, match="NaN"):
        from_complex64(samples, "ci8")


def test_gnuradio_python_gives_the_same_bits(gnuradio_python: Path, tmp_path: Path) -> None:
    types = INTEGERS + FLOATS
    for datatype in types:
        (tmp_path / datatype).write_bytes(random_bytes(datatype, 5000))
    script = (
        "import sys, pathlib\n"
        "from rfvit_rt.wire.samples import to_complex64\n"
        "for name in sys.argv[1:]:\n"
        "    path = pathlib.Path(name)\n"
        "    path.with_suffix('.out').write_bytes(to_complex64(path.read_bytes(), path.name).tobytes())\n"
    )
    files = [str(tmp_path / datatype) for datatype in types]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([gnuradio_python, "-c", script, *files], check=True, env=environment, timeout=60)
    for datatype in types:
        expected = to_complex64((tmp_path / datatype).read_bytes(), datatype).tobytes()
        assert (tmp_path / f"{datatype}.out").read_bytes() == expected
