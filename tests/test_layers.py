# SPDX-License-Identifier: Apache-2.0
"""The house's walls: who may import whom, what each Python needs, and whose licence a file bears."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "rfvit_rt"

# Dependencies point down: a room imports itself and rooms of the layers below its own.
LAYERS = [
    {"cli"},
    {"live", "report", "bench"},
    {"session", "sensing"},
    {"run", "doctor", "csi_replay", "build"},
    {"pipeline", "flowgraph", "terminal", "outputs", "running"},
    {"web"},
    {"sources", "engines", "sinks", "segments", "stitching", "consensus", "emissions", "activity", "models"},
    {"windowing", "contract", "vit", "iq_graph"},
    {"spectrogram", "csi", "wire"},
    {"datatypes", "errors", "figures", "console"},
]
RANK = {room: rank for rank, rooms in enumerate(reversed(LAYERS)) for room in rooms}
SIDEWAYS = {("sinks", "sources")}  # annotations are written into the metadata of the recording that was read

# Packages that are heavy, optional, or of another world, and the only files that may import them.
HOMES = {
    "torch": {
        "rfvit_rt/vit.py",
        "rfvit_rt/iq_graph.py",
        "rfvit_rt/engines/pytorch.py",
        "rfvit_rt/engines/torch_passes.py",
    },
    "tensorrt": {"rfvit_rt/engines/tensorrt.py"},
    "tensorrt_lean": {"rfvit_rt/engines/tensorrt.py"},
    "pycuda": {"rfvit_rt/engines/tensorrt.py"},
    "serial": {"rfvit_rt/sources/csi_serial.py"},
    # OpenVINO reports its imports to its maker unless it is imported as this file does it.
    "openvino": {"rfvit_rt/engines/openvino.py"},
    "matplotlib": {"rfvit_rt/bench/picture.py", "rfvit_rt/sinks/image.py", "rfvit_rt/sinks/timeline_image.py"},
    "jinja2": {"rfvit_rt/report/page.py"},
    "paho": {"rfvit_rt/sinks/mqtt.py"},
    "prometheus_client": {"rfvit_rt/sinks/prometheus.py"},
    "starlette": {"rfvit_rt/web/access.py", "rfvit_rt/web/connection.py", "rfvit_rt/web/server.py"},
    "uvicorn": {"rfvit_rt/web/server.py"},
    "websockets": set(),  # uvicorn imports it
    "gnuradio": set(),
    "pmt": set(),
    "training": set(),
    "gr_blocks": set(),
    "flowgraphs": set(),
}
OPTIONAL = {"torch", "tensorrt", "tensorrt_lean", "pycuda"}
NEW_IN_3_11 = {
    "tomllib",
    "Self",
    "Never",
    "LiteralString",
    "assert_never",
    "StrEnum",
    "UTC",
    "ExceptionGroup",
    "file_digest",
}
WIRE = {"rfvit_rt", "rfvit_rt.errors", "rfvit_rt.datatypes", "rfvit_rt.wire"}
FOLDERS = ("rfvit_rt", "training", "tests", "gr_blocks", "flowgraphs")
COPYLEFT = ("gr_blocks", "flowgraphs")  # they import GNU Radio


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    package = module_of(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            anchor = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*anchor, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if is_own_module(name) else base for name in names)


def is_own_module(name: str) -> bool:
    place = REPOSITORY.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def run_python(python: str | Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-W", "error", "-c", code, *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=120)


# Makes only some packages importable, or all but some, as if the others were not installed.
ONLY = """
import sys
class Only:
    def __init__(self, allowed):
        self.allowed = allowed
    def find_spec(self, name, path=None, target=None):
        if not self.allowed(name.partition(".")[0]):
            raise ModuleNotFoundError(f"{name} is out of bounds here", name=name)
"""


# ---- by reading ----


def test_every_room_has_a_layer():
    rooms = {room(module_of(path)) for path in python_files("rfvit_rt")} - {""}
    assert rooms <= RANK.keys(), "give the new rooms a place in LAYERS"


def test_dependencies_point_down():
    wrong = []
    for path in python_files("rfvit_rt"):
        here = room(module_of(path))
        for module in imports(path):
            there = room(module)
            if not module.startswith("rfvit_rt") or not there or there == here or (here, there) in SIDEWAYS:
                continue
            if not here or RANK[there] >= RANK[here]:
                wrong.append(f"{name_of(path)} imports {module}")
    assert not wrong


@pytest.mark.parametrize("package", HOMES)
def test_packages_stay_in_their_homes(package):
    wrong = [
        name_of(path)
        for path in python_files("rfvit_rt")
        if name_of(path) not in HOMES[package] and package in {module.split(".")[0] for module in imports(path)}
    ]
    assert not wrong, f"{package} is imported there"


def test_openvino_is_imported_the_quiet_way_everywhere():
    wrong = [
        name_of(path)
        for path in python_files(*FOLDERS)
        if name_of(path) not in HOMES["openvino"] and "openvino" in {module.split(".")[0] for module in imports(path)}
    ]
    assert not wrong, "take it from rfvit_rt.engines.openvino"


def test_gnu_radios_side_imports_only_the_wire_and_below():
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in python_files("gr_blocks", "flowgraphs")
        for module in imports(path)
        if module.split(".")[0] in ("rfvit_rt", "training") and ".".join(module.split(".")[:2]) not in WIRE
    ]
    assert not wrong


def test_the_wire_is_python_3_10():
    """GNU Radio's Python may be older than the runtime's."""
    for path in wire_files():
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
        assert not names & NEW_IN_3_11, name_of(path)


def wire_files() -> list[Path]:
    return [PACKAGE / "errors.py", PACKAGE / "datatypes.py", *python_files("rfvit_rt/wire")]


# ---- by importing ----


def test_the_base_install_imports_without_the_extras():
    extras = {name_of(PACKAGE / "vit.py"), *(home for package in OPTIONAL for home in HOMES[package])}
    modules = [module_of(path) for path in python_files("rfvit_rt") if name_of(path) not in extras]
    base = (
        "openvino",
        "matplotlib",
        "serial",
        "jinja2",
        "paho",
        "prometheus_client",
        "starlette",
        "uvicorn",
        "websockets",
    )
    forbidden = [package for package in HOMES if package not in base]
    code = f"""{ONLY}
import importlib, json
forbidden, modules = json.loads(sys.argv[1])
sys.meta_path.insert(0, Only(lambda name: name not in forbidden))
for module in modules:
    importlib.import_module(module)
"""
    child = run_python(sys.executable, code, json.dumps([forbidden, modules]))
    assert child.returncode == 0, child.stderr


IMPORT_THE_WIRE = f"""{ONLY}
import importlib, json
allowed = sys.stdlib_module_names | {{"numpy", "zmq", "rfvit_rt"}}
sys.meta_path.insert(0, Only(lambda name: name in allowed or name.startswith("__editable__")))
modules = json.loads(sys.argv[1])
for module in modules:
    importlib.import_module(module)
for module in ("rfvit_rt.contract", "rfvit_rt.spectrogram"):
    assert module not in sys.modules, module
print(len(modules), *sys.version_info[:2])
"""


def test_the_wire_imports_with_numpy_and_pyzmq_alone():
    modules = [module_of(path) for path in wire_files()]
    child = run_python(sys.executable, IMPORT_THE_WIRE, json.dumps(modules))
    assert child.returncode == 0, child.stderr
    assert int(child.stdout.split()[0]) >= 5


def test_the_wire_imports_in_gnu_radios_python(gnuradio_python):
    modules = [module_of(path) for path in wire_files()]
    child = run_python(gnuradio_python, IMPORT_THE_WIRE, json.dumps(modules))
    assert child.returncode == 0, child.stderr
    assert int(child.stdout.split()[0]) >= 5


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["segment", "--help"], ["sense", "--help"]], ids=" ".join
)
def test_the_command_line_answers_without_heavy_imports(arguments):
    code = """
import sys
sys.argv[0] = "rfvit"
from rfvit_rt.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"openvino", "onnx", "torch", "matplotlib", "scipy", "sigmf", "uvicorn"} & sys.modules.keys()
assert not heavy, heavy
"""
    child = run_python(sys.executable, code, *arguments)
    assert child.returncode == 0, child.stderr
    assert "rfvit" in child.stdout


# ---- by licence ----


def licensed_files() -> list[Path]:
    names = {"CMakeLists.txt", "Makefile"}
    files = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix in (".py", ".toml", ".yml", ".cmake") or path.name in names]
    return sorted([*files, REPOSITORY / "pyproject.toml", REPOSITORY / "Makefile", REPOSITORY / ".ci" / "run"])


def test_every_file_names_its_licence():
    wrong = []
    for path in licensed_files():
        head = "\n".join(path.read_text(encoding="utf-8").splitlines()[:5])
        # GNU Radio Companion writes GPL-3.0 where a flowgraph says nothing else.
        licence = r"GPL-3\.0(-or-later)?" if name_of(path).startswith(COPYLEFT) else r"Apache-2\.0"
        if not re.search(rf"^\W*SPDX-License-Identifier: {licence}\W*$", head, re.MULTILINE):
            wrong.append(name_of(path))
    assert not wrong


def test_python_files_begin_with_their_licence():
    """Those that people write; graphs that GNU Radio Companion turns into Python begin as it likes."""
    wrong = []
    for path in python_files("rfvit_rt", "training", "tests", "gr_blocks"):
        lines = path.read_text(encoding="utf-8").splitlines()
        first = next((line for line in lines if not line.startswith("#!")), "")
        if not first.startswith("# SPDX-License-Identifier: "):
            wrong.append(name_of(path))
    assert not wrong
