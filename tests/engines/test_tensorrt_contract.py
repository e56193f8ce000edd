# SPDX-License-Identifier: Apache-2.0
"""Whether what the TensorRT engine calls exists: every name, flag, argument and type, in NVIDIA's real bindings.

mypy reads the engine's module against stubs that are made of the bindings (bindings.py), so whatever is used there is
checked, now and later. That shows that the calls exist as they are made; not that a plan builds or runs.

RFVIT_TENSORRT_BINDINGS names folders with other releases' bindings, unpacked, to be checked too.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from . import pycuda_standin, tensorrt_standin
from .bindings import Stubs, bindings_folder, make_stubs

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINE = REPOSITORY / "rfvit_rt" / "engines" / "tensorrt.py"
OTHERS = [Path(folder) for folder in os.environ.get("RFVIT_TENSORRT_BINDINGS", "").split(os.pathsep) if folder]
NEEDS_BINDINGS = "the bindings are in the test extra, for Linux on x86-64: pip install -e '.[test]'"
# The package that users import is the bindings under another name.
_LEAN_AS_WELL = "from tensorrt import *\nfrom tensorrt import __version__ as __version__\n"
# Where the type of something is lost: in NumPy, or where TensorRT gives a NumPy type.
_UNTYPED = (r"trt\.nptype\(", r"\bpart\[0\] for part\b", r"np\.array_equal\(")


pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc compiles the empty libraries"),
    pytest.mark.timeout(300),  # mypy reads NumPy's stubs first, which takes a busy machine most of a minute
]


@pytest.fixture(scope="session", params=["installed", *map(str, OTHERS)])
def stubs(request, tmp_path_factory) -> Stubs:
    """Of the full bindings, with PyCUDA's stand-in in PyCUDA's place."""
    site = bindings_folder("tensorrt") if request.param == "installed" else Path(request.param)
    if site is None:
        pytest.skip(NEEDS_BINDINGS)
    made = make_stubs("tensorrt", site, tmp_path_factory.mktemp("tensorrt"))
    (made.folder / "tensorrt_lean").mkdir()
    (made.folder / "tensorrt_lean" / "__init__.pyi").write_text(_LEAN_AS_WELL)
    put_pycuda(made.folder)
    return made


@pytest.fixture(scope="session")
def lean(tmp_path_factory) -> Stubs:
    """Of the lean runtime's bindings, as if nothing else were installed."""
    site = bindings_folder("tensorrt_lean")
    if site is None:
        pytest.skip(NEEDS_BINDINGS)
    made = make_stubs("tensorrt_lean", site, tmp_path_factory.mktemp("lean"))
    put_pycuda(made.folder)
    return made


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def put_pycuda(folder: Path) -> None:
    package = folder / "pycuda"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "driver.py").write_text(Path(pycuda_standin.__file__).read_text(encoding="utf-8"), encoding="utf-8")


def objections(stubs: Stubs, cache: Path, source: str) -> list[str]:
    """What mypy says of a version of the engine's module; also of expressions whose type it cannot tell."""
    config = cache / "mypy.ini"
    config.write_text(
        "[mypy]\nfollow_imports = silent\ndisallow_any_expr = True\ndisable_error_code = no-redef\n"
        "[mypy-onnx.*]\nignore_missing_imports = True\nfollow_imports = skip\n"
    )
    file = cache / f"engine_{hashlib.sha256(source.encode()).hexdigest()[:12]}.py"  # mypy remembers files by name
    file.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(cache / stubs.version)]
    environment = os.environ | {"MYPYPATH": os.pathsep.join(map(str, (stubs.folder, REPOSITORY)))}
    done = subprocess.run(
        [*command, "--no-error-summary", str(file)],
        env=environment,
        cwd=cache,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    lines = source.splitlines()
    found = []
    for place, message in re.findall(rf"^\S*{file.name}:(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        line = lines[int(place) - 1]
        if 'type contains "Any"' in message:  # NumPy's arrays
            continue
        if message.startswith('Expression has type "Any"') and any(re.search(known, line) for known in _UNTYPED):
            continue
        found.append(f"{line.strip()}: {message}")
    return found


def test_everything_that_the_engine_uses_is_there(stubs, cache):
    assert int(stubs.version.partition(".")[0]) >= 10
    assert not objections(stubs, cache, ENGINE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("execute_async_v3(", "execute_async_v2(", '"IExecutionContext" has no attribute "execute_async_v2"'),
        ("BuilderFlag.TF32", "BuilderFlag.TF31", '"type[BuilderFlag]" has no attribute "TF31"'),
        ("num_io_tensors", "num_bindings", '"ICudaEngine" has no attribute "num_bindings"'),
        ("ignore_mismatch=False", "ignore=False", 'Unexpected keyword argument "ignore"'),
        (", ignore_mismatch=False", "", 'Missing positional argument "ignore_mismatch"'),
        ("trt.OnnxParser(network, messages)", "trt.OnnxParser(network)", 'Missing positional argument "logger"'),
        ("opt=trt.Dims(", "best=trt.Dims(", 'Unexpected keyword argument "best"'),
        ("trt.TensorIOMode.INPUT", "trt.TensorMode.INPUT", 'Module has no attribute "TensorMode"'),
        ("error.desc()", "error.description()", '"ParserError" has no attribute "description"'),
        ("parse(graph)", "parse(graph, 3)", 'Argument 2 to "parse" of "OnnxParser" has incompatible type "int"'),
        ("num_steps: int)", "num_steps: int, more: int)", 'Signature of "phase_start" incompatible with supertype'),
        ("set_tensor_address(tensor.name, ", "set_tensor_address(", 'Missing positional argument "memory"'),
        ("cuda.memcpy_htod_async(", "cuda.memcpy_htod(", 'Module has no attribute "memcpy_htod"'),
        ("wait_for_event(self._computed)", "wait_for_event()", 'Too few arguments for "wait_for_event"'),
        (": trt.ICudaEngine = _made(", ": Any = _made(", ""),
    ],
)
def test_the_check_finds_what_is_not_there(stubs, cache, good, bad, says):
    source = ENGINE.read_text(encoding="utf-8")
    assert good in source
    changed = source.replace(good, bad, 1).replace("from typing import ", "from typing import Any, ", 1)
    found = objections(stubs, cache, changed)
    assert any(says in message for message in found), found
    assert found


def test_flags_of_earlier_releases_are_found_missing(stubs, cache):
    if stubs.version.startswith("10."):
        pytest.skip("TensorRT 10 still has them")
    source = ENGINE.read_text(encoding="utf-8").replace("BuilderFlag.TF32", "BuilderFlag.FP16")
    assert any('has no attribute "FP16"' in message for message in objections(stubs, cache, source))


def test_all_that_runs_a_plan_is_in_the_lean_bindings_too(lean, cache):
    """They lack the builder and what belongs to it, which is used in these functions alone."""
    source = ENGINE.read_text(encoding="utf-8").replace("import tensorrt as trt", "import tensorrt_lean as trt")
    tree = ast.parse(source)
    building = {"build_plan", "_network_flags", "_parse", "_profile", "_timing_cache"}
    rest = [node for node in tree.body if getattr(node, "name", None) not in building]
    for node in rest:
        if isinstance(node, ast.FunctionDef) and node.name == "_builder_flags":
            node.body = [ast.parse("return []").body[0]]
    removed = {name.attr for node in tree.body if node not in rest for name in ast.walk(node) if _is_of_trt(name)}
    assert "Builder" in removed
    tree.body = rest
    assert not objections(lean, cache, ast.unparse(tree))
    assert "Builder" not in lean.definitions
    assert any(
        '"ICudaEngine" has no attribute' in text
        for text in objections(lean, cache, ast.unparse(tree).replace("num_io_tensors", "num_bindings"))
    )


ON_THE_BINDINGS = """
import json, sys
from rfvit_rt.engines import tensorrt as engine
from rfvit_rt.errors import EngineError
trt, told = engine.trt, []

class Shown:
    def start(self, *told_): told.append(["start", *told_])
    def step(self, *told_): told.append(["step", *told_]); return told_[-1] < 1
    def finish(self, *told_): told.append(["finish", *told_])

messages, monitor = engine._Messages(), engine._Monitor(Shown())
for severity in (trt.ILogger.Severity.WARNING, trt.ILogger.Severity.INTERNAL_ERROR):
    messages.log(severity, f"a {severity.name}\\n of it")
monitor.phase_start("p", None, 3)
going = [monitor.step_complete("p", step) for step in range(2)]
monitor.phase_finish("p")
try:
    refused = repr(engine._started(trt.Runtime, "start its runtime", engine._Messages()))
except EngineError as error:
    refused = str(error)
print(json.dumps({
    "told": told, "going": going, "stopped": monitor.stopped, "last": messages.last, "refused": refused,
    "dims": [trt.Dims([2, 3])[axis] for axis in range(len(trt.Dims([2, 3])))],
    "types": [trt.nptype(kind).__name__ for kind in (trt.float32, trt.int32, trt.uint8)],
    "flags": [flag.name for flag in engine._builder_flags(True)],
    "network": engine._network_flags() == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),
}))
"""


def test_the_module_on_the_real_bindings(stubs, tmp_path):
    """What needs no library behind the bindings: its own classes on theirs, and that nothing at all is refused."""
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    put_pycuda(tmp_path)
    path = os.pathsep.join([str(tmp_path), stubs.environment["PYTHONPATH"], str(REPOSITORY)])
    environment = os.environ | stubs.environment | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", ON_THE_BINDINGS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "told": [["start", "p", None, 3], ["step", "p", 0], ["step", "p", 1], ["finish", "p"]],
        "going": [True, False],
        "stopped": True,
        "last": "a INTERNAL_ERROR of it",
        "refused": "TensorRT cannot start its runtime (no reason given); 'rfvit doctor' tells what is installed",
        "dims": [2, 3],
        "types": ["float32", "int32", "uint8"],
        "flags": ["DISTRIBUTIVE_INDEPENDENCE", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"],
        "network": True,
    }


def _is_of_trt(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trt"


# ---- the stand-ins ----


def public(module: ModuleType) -> dict[str, object]:
    """What a stand-in stands in for."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def arguments_of(function: object) -> list[tuple[str, bool]]:
    """Names, and whether each can be left out; without self."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default is not p.empty) for p in parameters if p.name not in ("self", "cls")]


def signatures(node: ast.ClassDef, name: str) -> list[list[tuple[str, bool]]]:
    """As the bindings have them, one for each overload."""
    found = []
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == name:
            arguments = part.args.args[1:]
            required = len(arguments) - len(part.args.defaults)
            found.append([(argument.arg, place >= required) for place, argument in enumerate(arguments)])
    return found


def attributes(stubs: Stubs, name: str) -> set[str]:
    """Properties and variables of a class."""
    node = stubs.definitions[name]
    assert isinstance(node, ast.ClassDef)
    variables = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
    return variables | {
        part.name
        for part in node.body
        if isinstance(part, ast.FunctionDef) and any(ast.unparse(d).startswith("property") for d in part.decorator_list)
    }


def drift(stubs: Stubs, module: ModuleType) -> list[str]:
    """Where the stand-in says other than the bindings."""
    wrong = []
    for name, value in public(module).items():
        if name not in stubs.definitions:
            wrong.append(f"there is no {name}")
        elif name in stubs.enums:
            own = {member.name: int(member) for member in value}
            wrong += [
                f"{name}.{key} is {number}" for key, number in own.items() if stubs.enums[name].get(key) != number
            ]
        elif isinstance(value, type):
            wrong += list(_drift_of_class(stubs, name, value))
    return wrong


def _drift_of_class(stubs, name, value):
    node = stubs.definitions[name]
    for attribute, content in vars(value).items():
        if isinstance(content, type):  # a class in the class, as ILogger.Severity
            continue
        if attribute.startswith("_") and attribute not in ("__init__", "__len__", "__getitem__"):
            continue
        if isinstance(content, property):
            if attribute not in attributes(stubs, name):
                yield f"{name}.{attribute} is no property"
        elif not signatures(node, attribute):
            yield f"there is no {name}.{attribute}"
        elif arguments_of(content) not in signatures(node, attribute):
            yield f"{name}.{attribute} takes {signatures(node, attribute)}, not {arguments_of(content)}"
    for attribute in getattr(value, "__annotations__", {}):
        if not attribute.startswith("_") and attribute not in attributes(stubs, name):
            yield f"{name} has no {attribute}"


def test_the_stand_in_for_tensorrt_has_its_names_and_arguments(stubs):
    assert len(public(tensorrt_standin)) > 20
    if stubs.version.startswith("11."):
        assert not drift(stubs, tensorrt_standin)


def test_the_stand_in_has_all_that_the_engine_uses():
    """By running: what the engine uses and the stand-in lacks fails in test_tensorrt.py. Here by name, for flags."""
    used = {node.attr for node in ast.walk(ast.parse(ENGINE.read_text(encoding="utf-8"))) if _is_of_trt(node)}
    assert used - {"__version__"} <= public(tensorrt_standin).keys()


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("Builder.create_network", lambda self, flags: None, "Builder.create_network takes"),
        (
            "IExecutionContext.execute_async_v2",
            lambda self, bindings: None,
            "there is no IExecutionContext.execute_async_v2",
        ),
        ("IBuilderConfig.set_timing_cache", lambda self, cache: None, "IBuilderConfig.set_timing_cache takes"),
        ("ICudaEngine.num_bindings", property(lambda self: 3), "ICudaEngine.num_bindings is no property"),
        ("Layer", type("Layer", (), {"__module__": tensorrt_standin.__name__}), "there is no Layer"),
    ],
)
def test_drift_is_found(stubs, monkeypatch, path, change, says):
    *owner, name = path.split(".")
    target = getattr(tensorrt_standin, owner[0]) if owner else tensorrt_standin
    monkeypatch.setattr(target, name, change, raising=False)
    assert any(says in line for line in drift(stubs, tensorrt_standin))


@pytest.mark.skipif(find_spec("pycuda") is None, reason="PyCUDA is not installed: it is built with a CUDA toolkit")
def test_the_stand_in_for_pycuda_has_its_names_and_arguments():
    """As Boost.Python writes them into docstrings."""
    driver = pytest.importorskip("pycuda.driver", exc_type=ImportError)
    for name, value in public(pycuda_standin).items():
        real = getattr(driver, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(real, driver.Error), name
        elif isinstance(value, type):
            for attribute, content in vars(value).items():
                if not attribute.startswith("_") or attribute in ("__int__", "__init__"):
                    _hold(getattr(content, "__func__", content), vars(real)[attribute], f"{name}.{attribute}")
        else:
            _hold(value, real, name)


def _hold(content, real, name):
    if isinstance(content, property):
        assert isinstance(real, property), name
        return
    documented = str((real.__func__ if isinstance(real, staticmethod) else real).__doc__)
    first = re.search(r"^\w+\((.*)\) ->", documented, re.MULTILINE)
    assert first is not None, name
    required, optional = first[1].partition("[")[0], first[1].partition("[")[2]
    their = [(found, False) for found in re.findall(r"\)(\w+)", required)]
    their += [(found, True) for found in re.findall(r"\)(\w+)", optional)]
    parameters = inspect.signature(content).parameters.values()
    assert len(parameters) <= len(their), f"{name}: {documented}"
    for own, (argument, can_go) in zip(parameters, their, strict=False):
        if own.kind is own.POSITIONAL_ONLY or own.name == "self":
            continue
        assert (own.name, own.default is not own.empty) == (argument, can_go), f"{name}: {documented}"
    assert all(can_go for _, can_go in their[len(parameters) :]), f"{name}: {documented}"
