# SPDX-License-Identifier: Apache-2.0
"""Static buffers and batch sizes, on the processor; what only CUDA has is skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from rfvit_rt.errors import EngineError

torch = pytest.importorskip("torch", reason="pip install -e '.[train]'")

from rfvit_rt.engines.torch_passes import Item, Passes, full_precision  # noqa: E402

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]


def sums_and_signs(values, factors):
    """One output of rows, one of a value each, of two types."""
    scaled = values * factors[:, None]
    return scaled.cumsum(1), (scaled.sum(1) > 0).to(torch.uint8)


def passes(function=sums_and_signs, sizes=(1, 4, 16), device="cpu"):
    return Passes(function, [Item((3,)), Item(())], sizes, torch.device(device))


def items(count, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 3), np.float32), rng.standard_normal(count, np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 45])
def test_any_number_of_items_comes_back_in_order(count, device):
    values, factors = items(count)
    sums, signs = passes(device=device).run(values, factors, take=(0, 1))
    scaled = values * factors[:, None]
    np.testing.assert_allclose(sums, scaled.cumsum(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(signs, scaled.sum(axis=1) > 0)
    assert signs.dtype == np.uint8


def test_only_what_is_asked_for_is_brought_back():
    values, factors = items(5)
    prepared = passes()
    (signs,) = prepared.run(values, factors, take=(1,))
    (sums,) = prepared.run(values, factors)
    assert signs.shape == (5,)
    assert sums.shape == (5, 3)


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_of_an_earlier_batch_stays(device):
    """Neither in the result, which is the caller's own, nor in the part of the buffers that a smaller batch leaves."""
    prepared = passes(lambda values, factors: ((values * factors[:, None]).sum() + values,), device=device)
    prepared.run(*items(16))
    values, factors = items(3, seed=2)  # in a batch of four: the fourth must count as zero
    first = prepared.run(values, factors)[0]
    kept = first.copy()
    prepared.run(*items(16, seed=3))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(first, (values * factors[:, None]).sum() + values, rtol=1e-4, atol=1e-5)


def test_sizes_that_round_otherwise_are_left_out():
    """As kernels for large batches do."""

    def rounded(values, factors):
        return (values + (1e-3 if len(values) == 16 else 0),)

    prepared = passes(rounded)
    prepared.keep_equal_sizes(*items(1))
    assert prepared.sizes == (1, 4)
    assert prepared.run(*items(40))[0].shape == (40, 3)


def test_a_size_whose_items_differ_among_themselves_is_left_out():
    def skewed(values, factors):
        return (values + torch.arange(len(values))[:, None] * (1e-3 if len(values) == 16 else 0),)

    prepared = passes(skewed)
    prepared.keep_equal_sizes(*items(1))
    assert prepared.sizes == (1, 4)


def test_every_output_is_compared():
    def rounded(values, factors):
        return values, values + (1e-3 if len(values) == 16 else 0)

    prepared = passes(rounded)
    prepared.keep_equal_sizes(*items(1), outputs=2)
    assert prepared.sizes == (1, 4)


def test_no_size_left_is_an_error():
    prepared = passes(lambda values, factors: (values + torch.arange(len(values))[:, None],), sizes=(2, 4))
    with pytest.raises(EngineError, match="different results within a batch; try --precision f32"):
        prepared.keep_equal_sizes(*items(1))


def test_results_that_are_no_numbers_are_left_to_who_proves_them():
    prepared = passes(lambda values, factors: (values * torch.nan,))
    prepared.keep_equal_sizes(*items(1))
    assert prepared.sizes == (1, 4, 16)


def test_float32_means_float32_and_only_here():
    places = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [place.fp32_precision for place in places]
    with full_precision():
        assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
    assert [place.fp32_precision for place in places] == before
