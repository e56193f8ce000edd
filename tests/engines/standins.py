# SPDX-License-Identifier: Apache-2.0
"""The TensorRT engine's module, as it would be on a machine with a GPU, on stand-ins for TensorRT and PyCUDA."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from . import pycuda_standin, tensorrt_standin

_ENGINE = "rfvit_rt.engines.tensorrt"
_OF_THE_BUILDER = {  # what the lean runtime's package lacks
    "Builder",
    "IBuilderConfig",
    "INetworkDefinition",
    "ITensor",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
}


@dataclass
class StandIns:
    """The module, and what tests set and see."""

    module: Any
    machine: pycuda_standin._Machine
    trt: tensorrt_standin._Behaviour
    plans: Path


@contextmanager
def standing_in(
    patch: pytest.MonkeyPatch, plans: Path, *, lean: bool = False, schedule: Any = "late"
) -> Iterator[StandIns]:
    """Import the engine's module anew on the stand-ins; what it was before comes back afterwards."""
    hidden = _OF_THE_BUILDER if lean else set()
    package = _module("pycuda", {"driver": _module("pycuda.driver", vars(pycuda_standin))})
    trt = _module(
        "tensorrt_lean" if lean else "tensorrt",
        {name: value for name, value in vars(tensorrt_standin).items() if name not in hidden},
    )
    modules: dict[str, ModuleType | None] = {"tensorrt": None, "tensorrt_lean": None}
    modules |= {"pycuda": package, "pycuda.driver": package.driver, trt.__name__: trt}
    with patch.context() as patching:
        for name, module in modules.items():
            patching.setitem(sys.modules, name, module)
        patching.setenv("RFVIT_PLANS", str(plans))
        patching.delitem(sys.modules, _ENGINE, raising=False)
        module = importlib.import_module(_ENGINE)
        try:
            patching.setattr(module, "CudaGraph", pycuda_standin._Graph)
            yield StandIns(module, pycuda_standin._reset(schedule=schedule), tensorrt_standin._reset(), plans)
        finally:
            del sys.modules[_ENGINE]
            del sys.modules["rfvit_rt.engines"].tensorrt


def _module(name: str, contents: dict[str, Any]) -> Any:
    module = ModuleType(name)
    module.__dict__.update(contents | {"__name__": name, "__spec__": ModuleSpec(name, None)})
    return module
