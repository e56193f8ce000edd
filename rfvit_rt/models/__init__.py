# SPDX-License-Identifier: Apache-2.0
"""The models that ship: ONNX files in this folder, each named as its contract names it, with a model card beside it."""

from __future__ import annotations

import os
from pathlib import Path

from rfvit_rt.contract import ModelFile, read_model
from rfvit_rt.errors import ModelError

FOLDER = Path(__file__).parent
DEFAULTS = {"segmentation": "spectrum-small", "activity": "activity-esp32-tiny"}  # by task


def model_names() -> tuple[str, ...]:
    """Names of the models that ship, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.onnx")))


def shipped_models() -> list[ModelFile]:
    """Read all models that ship, in the order of their names."""
    return [read_model(FOLDER / f"{name}.onnx") for name in model_names()]


def find_model(name: str | Path) -> ModelFile:
    """Read a model, by the name of one that ships or by the path of an ONNX file.

    Raises
    ------
    ModelError
        If there is neither, or the file is not a model.

    Examples
    --------
    >>> find_model("no-such-model")
    Traceback (most recent call last):
    rfvit_rt.errors.ModelError: there is no model 'no-such-model'; ...
    """
    if str(name) in model_names():
        return read_model(FOLDER / f"{name}.onnx")
    if not os.path.exists(name):  # noqa: PTH110  (Path.exists raises where a name is too long, or holds a zero byte)
        ships = ", ".join(model_names()) or "none"
        raise ModelError(f"there is no model '{name}'; give the path of an .onnx file, or one that ships: {ships}")
    return read_model(Path(name))


def default_model(task: str = "segmentation") -> ModelFile:
    """Read the model that is used where none is named.

    Parameters
    ----------
    task : str
        One of :data:`rfvit_rt.contract.TASKS`.

    Raises
    ------
    ModelError
        If it does not ship, as in a checkout whose model is not trained yet.
    """
    name = DEFAULTS[task]
    if name not in model_names():
        raise ModelError(
            f"{name}.onnx is not in {FOLDER}; make it with 'python -m training.export', or give the path of another"
        )
    return find_model(name)
