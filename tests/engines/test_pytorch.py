# SPDX-License-Identifier: Apache-2.0
"""What only the torch engine does: it is the reference that others are held to."""

from __future__ import annotations

import numpy as np
import pytest

from rfvit_rt.engines import load_engine
from rfvit_rt.errors import EngineError, ModelError
from rfvit_rt.models import find_model, model_names

torch = pytest.importorskip("torch", reason="the reference needs torch: pip install -e '.[train]'")

TOLERANCE = 1e-4  # of any pixel's probability: f32 against f32, whose sums are ordered differently


def test_agrees_with_openvino(model, batch):
    pictures, bin_widths = batch(6)
    with load_engine(model, "pytorch") as reference, load_engine(model, "openvino", precision="f32") as engine:
        expected, got = reference.infer(pictures, bin_widths), engine.infer(pictures, bin_widths)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    "name", model_names() or [pytest.param("", marks=pytest.mark.skip(reason="no model ships in this checkout yet"))]
)
def test_agrees_with_openvino_on_what_ships(name, batch):
    model = find_model(name)
    pictures, bin_widths = batch(4, spec=model.contract.spec)
    with load_engine(model, "pytorch") as reference, load_engine(model, "openvino", precision="f32") as engine:
        expected, got = reference.infer(pictures, bin_widths), engine.infer(pictures, bin_widths)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_runs_on_cuda_as_on_the_processor(model, batch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    pictures, bin_widths = batch(6)
    with load_engine(model, "pytorch") as processor, load_engine(model, "pytorch", device="cuda") as cuda:
        assert torch.cuda.get_device_name() in cuda.description
        # Convolutions take TF32 on CUDA, which keeps 10 bits.
        np.testing.assert_allclose(cuda.infer(pictures, bin_widths), processor.infer(pictures, bin_widths), atol=2e-2)


@pytest.mark.parametrize("device", ["cuda:97", "cuda"])
def test_refuses_a_device_that_is_not_there(model, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(EngineError, match=f"torch cannot use the device '{device}' here"):
        load_engine(model, "pytorch", device=device)


def test_refuses_a_model_that_lacks_weights(damaged):
    def rename(proto):
        for tensor in proto.graph.initializer:
            if tensor.name == "encoder.embed.weight":
                tensor.name = "other"

    with pytest.raises(ModelError, match=r"it lacks 1, segmenter\.encoder\.embed\.weight among them"):
        load_engine(damaged(rename), "pytorch")


@pytest.mark.parametrize("vit", [None, {}, {"n_steps": 48}, {"rows": 3}, [], "vit"])
def test_refuses_a_contract_that_does_not_describe_the_network(promising, vit):
    with pytest.raises(ModelError, match="does not describe its network"):
        load_engine(promising(provenance={"vit": vit}), "pytorch")


@pytest.mark.parametrize("change", [{"heads": 2.0}, {"n_steps": "48"}, {"depth": None}, {"width": [32]}])
def test_refuses_sizes_that_are_not_whole_numbers(model, promising, change):
    vit = model.contract.provenance["vit"]
    with pytest.raises(ModelError, match="does not describe its network"):
        load_engine(promising(provenance={"vit": vit | change}), "pytorch")


def test_refuses_a_contract_that_describes_another_network(model, promising):
    vit = model.contract.provenance["vit"]
    for change in ({"width": 64}, {"patch": 8}, {"depth": 3}, {"mlp_ratio": -1}):
        with pytest.raises(ModelError, match=r"the weights in .* do not fit its network"):
            load_engine(promising(provenance={"vit": vit | change}), "pytorch")
    with pytest.raises(ModelError, match=r"a network of \(64, 64, 3\) steps, bins and classes"):
        load_engine(promising(provenance={"vit": vit | {"n_steps": 64}}), "pytorch")


@pytest.mark.parametrize("change", [{"depth": 10**9}, {"width": 10**9, "heads": 1}, {"width": 32768}])
def test_builds_no_network_that_the_file_cannot_hold(model, promising, change):
    vit = model.contract.provenance["vit"]
    with pytest.raises(ModelError, match="too small for the network"):
        load_engine(promising(provenance={"vit": vit | change}), "pytorch")
