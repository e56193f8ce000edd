# SPDX-License-Identifier: Apache-2.0
"""Type stubs of NVIDIA's own Python bindings, taken from the bindings themselves, on a machine that lacks TensorRT.

The bindings are a small wheel that loads as soon as TensorRT's libraries can be found; a few empty C functions under
their names will do. Every class, method, flag and signature is there then, in the form that mypy's stubgen reads.
Nothing of TensorRT runs.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = {
    "tensorrt": ("nvinfer", "nvinfer_plugin", "nvonnxparser"),
    "tensorrt_lean": ("nvinfer_lean",),
}
_ENTRY_POINTS = """
createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL createNvOnnxParser_INTERNAL
createNvOnnxParserRefitter_INTERNAL getBuilderPluginRegistry getPluginRegistry getNvOnnxParserVersion
initLibNvInferPlugins
"""
_MAKE = """
import importlib, json, sys
from mypy.stubgen import main
package, module, folder = sys.argv[1:]
main(["--quiet", "-m", package, "-m", f"{package}.{module}", "-o", folder])
bound = importlib.import_module(f"{package}.{module}")
enums = {
    name: {member: int(value) for member, value in kind.__members__.items()}
    for name, kind in vars(bound).items() if hasattr(kind, "__members__")
}
cpp = {
    f"{kind.__name__}.{name}": part.__doc__.strip().splitlines()[0]
    for kind in vars(bound).values() if isinstance(kind, type)
    for name, part in vars(kind).items() if callable(part) and "::" in (part.__doc__ or "").strip().partition("\\n")[0]
}
json.dump({"enums": enums, "cpp": cpp}, sys.stdout)
"""


@dataclass(frozen=True)
class Stubs:
    """What the bindings have.

    Attributes
    ----------
    package, version : str
    folder : Path
        For MYPYPATH: the package as a user imports it.
    enums : dict
        Members of every enumeration, and their numbers.
    environment : dict
        With which the bindings themselves can be imported, as ``tensorrt_bindings`` or ``tensorrt_lean_bindings``.
    """

    package: str
    version: str
    folder: Path
    enums: dict[str, dict[str, int]]
    environment: dict[str, str]

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """Classes and functions, by name."""
        files = sorted((self.folder / self.package).glob("*.pyi"))
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
        return {
            node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)
        }


def bindings_folder(package: str) -> Path | None:
    """Folder that the bindings of ``tensorrt`` or ``tensorrt_lean`` are installed in; None where they are not."""
    spec = find_spec(f"{package}_bindings")
    return Path(str(spec.origin)).parents[1] if spec else None


def make_stubs(package: str, site: Path, folder: Path) -> Stubs:
    """Make type stubs of the bindings below a folder.

    Parameters
    ----------
    package : str
        ``tensorrt`` or ``tensorrt_lean``.
    site : Path
        Folder that holds the package of bindings.
    folder : Path
        Where to write.
    """
    source = (site / f"{package}_bindings" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "([\d.]+)', source, re.MULTILINE)
    assert version is not None
    libraries = folder / "lib"
    libraries.mkdir(parents=True)
    _compile(libraries, [f"lib{name}.so.{version[1].partition('.')[0]}" for name in LIBRARIES[package]])
    environment = {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(site)}
    made = subprocess.run(
        [sys.executable, "-c", _MAKE, f"{package}_bindings", package, str(folder / "raw")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    target = folder / "stubs" / package
    shutil.copytree(folder / "raw" / f"{package}_bindings", target)
    stub = target / f"{package}.pyi"
    found = json.loads(made.stdout)
    stub.write_text(_mended(stub.read_text(encoding="utf-8"), found["cpp"]), encoding="utf-8")
    return Stubs(package, version[1], target.parent, found["enums"], environment)


def _compile(folder: Path, names: list[str]) -> None:
    """Libraries that hold empty functions under the names of TensorRT's."""
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _ENTRY_POINTS.split()))
    for name in names:
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True)


def _mended(stub: str, cpp: dict[str, str]) -> str:
    """Put right what pybind11's docstrings say in a way that stubs cannot.

    Parameters
    ----------
    stub : str
    cpp : dict
        First lines of docstrings that name C++ types, which stubgen does not read.
    """
    lines, kind = stub.splitlines(), ""
    for place, line in enumerate(lines):
        kind = line.split()[1].split("(")[0].rstrip(":") if line.startswith("class ") else kind
        method = re.match(r"    def (\w+)\(self, \*args, \*\*kwargs\)", line)
        if method and f"{kind}.{method[1]}" in cpp:
            lines[place] = f"    def {_in_python(cpp[f'{kind}.{method[1]}'])}: ..."
        elif re.search(r"= \.\.\., \w+: [\w.]+\)", line):
            # Arguments without a default after those with one: pybind11 allows what Python does not.
            lines[place] = re.sub(r"(: [\w.]+)(?=[,)])", r"\1 = ...", line)
    stub = "\n".join(lines).replace("typing.SupportsInt", "int").replace("typing.SupportsFloat", "float")
    stub = re.sub(r"^bool: DataType\n", "", stub, flags=re.MULTILINE)  # it would hide the type of that name
    # "This class exposes a buffer interface using Python's buffer protocol", says its docstring, which stubs leave out.
    buffer = "class IHostMemory:\n    def __buffer__(self, _: int, /) -> memoryview: ...\n"
    stub = stub.replace("class IHostMemory:\n", buffer)
    ast.parse(stub)
    return stub


def _in_python(signature: str) -> str:
    """A method's signature without the modules' names, and with the names that classes of C++ have in Python."""
    signature = re.sub(r"\bself: [\w.:]+", "self", re.sub(r"\w+_bindings\.\w+\.", "", signature))
    return re.sub(r"(?:\w+::)+(?:I(?=ParserError))?", "", signature)
