# SPDX-License-Identifier: Apache-2.0
"""The out-of-tree module: its own tests in GNU Radio's Python, building, installing, and use from GRC."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "gr_blocks"
PACKAGE = MODULE / "python" / "gnuradio" / "rfvit"
QA_FILES = sorted(path.stem for path in PACKAGE.glob("qa_*.py"))
BLOCKS = sorted(path.name.removesuffix(".block.yml") for path in (MODULE / "grc").glob("*.block.yml"))
PATIENCE = 300


def run(
    command: Sequence[str | Path], environment: dict[str, str] | None = None, cwd: Path | str = "/"
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | (environment or {})
    return subprocess.run(
        [str(word) for word in command],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def clean_environment(**variables: str) -> dict[str, str]:
    """No PYTHONPATH nor anything else that a developer may have set."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | variables


@pytest.fixture(scope="session")
def build(gnuradio_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module as ``cmake .. && make`` builds it, in a folder outside the repository."""
    for tool in ("cmake", "ctest", "make", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here; install: sudo apt-get install cmake g++ make")
    folder = tmp_path_factory.mktemp("build")
    # GNU Radio's CMake files take the first Python in the path, which in a virtual environment is not its own.
    options = [f"-DPYTHON_EXECUTABLE={gnuradio_python}"]
    configured = run(["cmake", *options, MODULE], cwd=folder)
    if "GnuradioConfig.cmake" in configured.stdout and "Could not find" in configured.stdout:
        pytest.skip("no GnuradioConfig.cmake here; install: sudo apt-get install gnuradio-dev")
    assert configured.returncode == 0, configured.stdout
    made = run(["make"], cwd=folder)
    assert made.returncode == 0, made.stdout
    return folder


@pytest.fixture(scope="session")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a tree that ``make install`` installed to."""
    root = tmp_path_factory.mktemp("installed")
    done = run(["make", "install", f"DESTDIR={root}"], cwd=build)
    assert done.returncode == 0, done.stdout
    return root


def python_path(root: Path) -> str:
    (package,) = root.rglob("gnuradio/rfvit/__init__.py")
    return str(package.parents[2])


# The blocks' own tests.


@pytest.mark.flaky(reruns=2)  # some are about what a second is enough for, and a busy machine takes longer now and then
@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("name", QA_FILES)
def test_qa(gnuradio_python: Path, name: str) -> None:
    """Uninstalled, with nothing but the module's folder in the path."""
    environment = {"PYTHONPATH": str(MODULE / "python")}
    done = run([gnuradio_python, "-W", "ignore::ResourceWarning", PACKAGE / f"{name}.py"], environment)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^Ran [1-9]\d* tests? in .*\n\nOK", done.stdout, re.MULTILINE), done.stdout


def test_ctest_runs_every_qa_file(build: Path) -> None:
    listed = run(["ctest", "-N"], cwd=build).stdout
    assert re.findall(r"Test +#\d+: (\w+)", listed) == QA_FILES
    # One of them is enough to see that the environment is right; test_qa runs them all.
    done = run(["ctest", "-R", "^qa_csi_sink$", "--output-on-failure"], cwd=build)
    assert "100% tests passed, 0 tests failed out of 1" in done.stdout, done.stdout


# Installed.

USE_THE_BLOCKS = """
import sys
import numpy as np, zmq
from gnuradio import blocks, gr, rfvit
import rfvit_rt.wire.gnuradio as wire

flowgraph = gr.top_block()
samples = np.arange(1000).astype(np.complex64)
source, sink = blocks.vector_source_c(samples), rfvit.IQSink(endpoint="tcp://127.0.0.1:*", sample_rate=1e6)
csi = rfvit.CSISink(endpoint="tcp://127.0.0.1:*")
flowgraph.connect(source, sink)
reader = zmq.Context().socket(zmq.PULL)
reader.rcvtimeo = 20000
reader.connect(sink.endpoint)
flowgraph.start()
came = 0
while came < 1000:
    message = wire.decode_stream_message(reader.recv_multipart(), wire.StreamFormat(tags=True))
    assert (message.samples == samples[message.offset :][: len(message.samples)]).all()
    came += len(message.samples)
flowgraph.stop()
flowgraph.wait()
reader.close()
print(rfvit.__file__)
print(wire.__file__)
"""


def test_installed_blocks_bring_what_they_need_of_rfvit(installed: Path, gnuradio_python: Path) -> None:
    environment = clean_environment(PYTHONPATH=python_path(installed))
    done = subprocess.run(
        [gnuradio_python, "-c", USE_THE_BLOCKS], env=environment, cwd="/", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    package, wire = map(Path, done.stdout.split()[-2:])
    assert package.is_relative_to(installed)
    assert wire.is_relative_to(package.parent / "private")


def test_installed_blocks_prefer_an_rfvit_that_is_installed(installed: Path, gnuradio_python: Path) -> None:
    environment = clean_environment(PYTHONPATH=f"{python_path(installed)}:{REPOSITORY}")
    done = subprocess.run(
        [gnuradio_python, "-c", USE_THE_BLOCKS], env=environment, cwd="/", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    package, wire = map(Path, done.stdout.split()[-2:])
    assert package.is_relative_to(installed)
    assert wire.is_relative_to(REPOSITORY)


def test_everything_is_installed_and_nothing_else(installed: Path) -> None:
    here = {path.name for path in PACKAGE.glob("*.py")}
    (package,) = (path.parent for path in installed.rglob("gnuradio/rfvit/__init__.py"))
    missing = here - {path.name for path in package.glob("*.py")}
    assert missing == {*(f"{name}.py" for name in QA_FILES), "testbed.py"} & here
    (blocks,) = (path.parent for path in installed.rglob("rfvit_iq_sink.block.yml"))
    assert blocks.parts[-4:] == ("share", "gnuradio", "grc", "blocks")
    assert sorted(path.name.removesuffix(".block.yml") for path in blocks.iterdir()) == BLOCKS
    private = package / "private" / "rfvit_rt"
    for path in private.rglob("*.py"):
        assert path.read_bytes() == (REPOSITORY / "rfvit_rt" / path.relative_to(private)).read_bytes()
    wire = {path.name for path in (REPOSITORY / "rfvit_rt" / "wire").glob("*.py")}
    assert {path.name for path in (private / "wire").glob("*.py")} == wire
    assert not list(package.parent.glob("__init__.py"))  # GNU Radio's own package must not be hidden


@pytest.mark.usefixtures("build")
def test_make_install_blocks_and_uninstall(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "build"
    command = ["make", "install-blocks", f"DESTDIR={root}", f"BLOCKS_BUILD={folder}", "PREFIX=/opt/blocks"]
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if ".venv" not in part)
    done = run(command, {"PATH": path}, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout
    assert len(list(root.glob("opt/blocks/share/gnuradio/grc/blocks/*.block.yml"))) == len(BLOCKS)
    assert run(["make", "uninstall"], {"DESTDIR": str(root)}, cwd=folder).returncode == 0
    assert [path for path in root.rglob("*") if path.is_file()] == []


# In GNU Radio Companion.

GRC = """
options:
  parameters: {{id: graph, generate_options: no_gui, output_language: python, run_options: run, run: 'True'}}
  states: {{coordinate: [8, 8], rotation: 0, state: enabled}}
blocks:
- name: samp_rate
  id: variable
  parameters: {{value: '1e6'}}
  states: {{coordinate: [8, 100], rotation: 0, state: enabled}}
- name: source
  id: blocks_null_source
  parameters: {{type: {source}, num_outputs: '1', vlen: '{vlen}'}}
  states: {{coordinate: [100, 100], rotation: 0, state: enabled}}
- name: sink
  id: {block}
  parameters: {{{parameters}}}
  states: {{coordinate: [300, 100], rotation: 0, state: enabled}}
connections:
- [source, '0', sink, '0']
metadata: {{file_format: 1}}
"""


def compile_graph(folder: Path, blocks: Path, python: str, graph: str) -> tuple[str, str]:
    """Return what grcc says, and the Python that it wrote."""
    if shutil.which("grcc") is None:
        pytest.skip("no grcc here; it comes with GNU Radio")
    (folder / "graph.grc").write_text(graph)
    environment = {"GRC_BLOCKS_PATH": str(blocks), "PYTHONPATH": python}
    said = run(["grcc", "-o", folder, folder / "graph.grc"], environment).stdout
    written = folder / "graph.py"
    return said, written.read_text() if written.is_file() else ""


@pytest.mark.parametrize(
    ("block", "source", "vlen", "parameters", "made"),
    [
        (
            "rfvit_iq_sink",
            "complex",
            1,
            "",
            "rfvit.IQSink('complex', 'tcp://127.0.0.1:5555', 'push', 'block', samp_rate",
        ),
        ("rfvit_iq_sink", "short", 2, "type: sc16, socket: pub, policy: drop, frequency: 2.4e9", "'sc16', 'tcp"),
        ("rfvit_iq_sink", "byte", 2, "type: sc8, endpoint: 'ipc:///tmp/never'", "'sc8', 'ipc:///tmp/never'"),
        ("rfvit_csi_sink", "complex", 112, "antennas: 2", "rfvit.CSISink('stream', 2, [*range"),
    ],
)
def test_the_sinks_compile_in_grc(
    gnuradio_python: Path, tmp_path: Path, block: str, source: str, vlen: int, parameters: str, made: str
) -> None:
    graph = GRC.format(block=block, source=source, vlen=vlen, parameters=parameters)
    said, code = compile_graph(tmp_path, MODULE / "grc", str(MODULE / "python"), graph)
    assert made in code, said
    # The generated program finds the block's parameters as it expects them.
    program = code[: code.index("def main(")].replace("tcp://127.0.0.1:5555", "tcp://127.0.0.1:*")
    program = program.replace("tcp://127.0.0.1:5556", "tcp://127.0.0.1:*").replace(
        "ipc:///tmp/never", f"ipc://{tmp_path}/x"
    )
    done = run([gnuradio_python, "-c", program + "\ngraph()"], {"PYTHONPATH": str(MODULE / "python")})
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("gnuradio_python")
def test_an_installed_block_compiles_in_grc(installed: Path, tmp_path: Path) -> None:
    (yml,) = installed.rglob("rfvit_iq_sink.block.yml")
    graph = GRC.format(block="rfvit_iq_sink", source="complex", vlen=1, parameters="")
    said, code = compile_graph(tmp_path, yml.parent, python_path(installed), graph)
    assert "rfvit.IQSink(" in code, said


@pytest.mark.usefixtures("gnuradio_python")
@pytest.mark.parametrize(
    ("block", "parameter"),
    [
        ("rfvit_iq_sink", "endpoint: udp://127.0.0.1:5555"),
        ("rfvit_iq_sink", "sample_rate: '-1'"),
        ("rfvit_iq_sink", "frequency: '\"2.4G\"'"),
        ("rfvit_iq_sink", "repeat_period: '0'"),
        ("rfvit_iq_sink", "hwm: '0'"),
        ("rfvit_csi_sink", "antennas: '65'"),
        ("rfvit_csi_sink", "subcarriers: '[2, 1]'"),
        ("rfvit_csi_sink", "device: ''"),
        ("rfvit_csi_sink", "frame_rate: '0'"),
        ("rfvit_csi_sink", "endpoint: nowhere"),
    ],
)
def test_grc_says_which_parameter_is_wrong(tmp_path: Path, block: str, parameter: str) -> None:
    vlen = {"antennas: '65'": 65 * 56, "subcarriers: '[2, 1]'": 2}.get(parameter, 56) if "csi" in block else 1
    graph = GRC.format(block=block, source="complex", vlen=vlen, parameters=parameter)
    said, code = compile_graph(tmp_path, MODULE / "grc", str(MODULE / "python"), graph)
    assert not code
    name = parameter.partition(":")[0]
    assert re.search(rf'Assertion ".*\b{name}\b.*" (failed|did not evaluate)', said), said
    assert "1 errors from flowgraph" in said, said


@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_is_documented_and_guarded(block: str) -> None:
    """By reading: GNU Radio's own YAML reader is in another Python."""
    text = (MODULE / "grc" / f"{block}.block.yml").read_text(encoding="utf-8")
    parameters = re.findall(r"^- +id: (\w+)\n +label: (.*)\n +dtype: (\w+)$", text, re.MULTILINE)
    documentation = text.partition("\ndocumentation:")[2]
    asserts = re.search(r"^asserts:\n((?:[- ].*\n)+)", text, re.MULTILINE)
    assert "category: '[rfvit]'" in text
    assert parameters
    assert asserts
    for name, label, kind in parameters:
        if name in ("title", "gui_hint"):  # any text will do
            continue
        words = re.sub(r"\(.*\)", "", label.strip("'\"")).strip()
        assert words.lower() in documentation.lower(), f"{words} is not in the documentation"
        # GRC itself lets an enum have no other value.
        assert kind == "enum" or re.search(rf"\b{name}\b", asserts.group(1)), f"no assert on {name}"
