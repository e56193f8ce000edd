# SPDX-License-Identifier: Apache-2.0
"""The blocks that the flowgraphs bring along, in GNU Radio itself: each test is a script that its Python runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "flowgraphs" / "recordings" / "lte_nr_20MHz.sigmf-meta"


def load_server() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rtl_tcp_server", Path(__file__).with_name("rtl_tcp_server.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RtlTcpServer = load_server().RtlTcpServer

HEAD = """
import json, sys
import numpy as np, pmt
from gnuradio import blocks, gr
def tags_of(sink):
    return [(t.offset, str(t.key), pmt.to_python(t.value)) for t in sink.tags()]
"""


def run_script(python: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [REPOSITORY / "flowgraphs", REPOSITORY / "gr_blocks" / "python", REPOSITORY]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [str(python), "-c", HEAD + script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def result_of(python: Path, script: str, *arguments: str) -> Any:
    done = run_script(python, script, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


HOP = """
from rfvit_radio.hop_plan import HopPlan
tb = gr.top_block()
source = blocks.vector_source_c(np.arange(100000).astype(np.complex64), False)
early = blocks.add_const_cc(0)
plan = HopPlan([1e9, 2e9, 1.5e9], 1000.0, 2.0, 0.5, int(sys.argv[1]))
sink = blocks.vector_sink_c()
heard = blocks.message_debug()
tb.connect(source, early, plan, sink)
tb.msg_connect(plan, "command", heard, "store")
tb.run()
import time
time.sleep(0.2)
commands = [pmt.to_double(pmt.dict_ref(heard.get_message(i), pmt.intern("freq"), pmt.PMT_NIL))
            for i in range(heard.num_messages())]
print(json.dumps([np.real(sink.data()).astype(int).tolist(), tags_of(sink), commands]))
"""


def test_a_hop_plan_passes_exactly_its_dwells(gnuradio_python: Path) -> None:
    """The samples are their own numbers: 500 are left out after each of six commands, 2000 are passed on."""
    samples, tags, commands = result_of(gnuradio_python, HOP, "2")
    expected = [range(start + 500, start + 2500) for start in range(0, 15000, 2500)]
    assert samples == [number for dwell in expected for number in dwell]
    assert commands == [1e9, 2e9, 1.5e9] * 2
    assert [tag for tag in tags if tag[1] == "rx_freq"] == [
        [2000 * hop, "rx_freq", frequency] for hop, frequency in enumerate([1e9, 2e9, 1.5e9] * 2)
    ]
    assert [tag for tag in tags if tag[1] == "rx_rate"] == [[2000 * hop, "rx_rate", 1000.0] for hop in range(6)]


def test_a_hop_plan_for_ever_ends_with_its_source(gnuradio_python: Path) -> None:
    samples, _, commands = result_of(gnuradio_python, HOP, "0")
    assert len(samples) == 100_000 - 500 * 40
    assert commands[:4] == [1e9, 2e9, 1.5e9, 1e9]
    assert len(commands) == 41  # the last, for which nothing came, too


def test_what_the_radio_loses_on_a_frequency_is_told_and_what_it_loses_between_is_not(gnuradio_python: Path) -> None:
    script = """
from rfvit_radio.hop_plan import HopPlan
def stamp(offset, time):
    tag = gr.tag_t()
    tag.offset, tag.key = offset, pmt.intern("rx_time")
    tag.value = pmt.make_tuple(pmt.from_uint64(int(time)), pmt.from_double(time % 1))
    return tag
# 500 samples to settle, 2000 passed on, at 1000 a second; half a second is lost in the second hop, five before it.
tags = [stamp(0, 100.0), stamp(1000, 101.0), stamp(2700, 107.7), stamp(4000, 109.5)]
tb = gr.top_block()
source = blocks.vector_source_c(np.arange(7500).astype(np.complex64), False, 1, tags)
plan = HopPlan([1e9, 2e9, 2e9], 1000.0, 2.0, 0.5, 1)
sink = blocks.vector_sink_c()
tb.connect(source, plan, sink)
tb.run()
print(json.dumps([np.real(sink.data()).astype(int).tolist(), tags_of(sink)]))
"""
    samples, tags = result_of(gnuradio_python, script)
    # The third hop stays where the second was, so nothing has to settle.
    assert samples == [*range(500, 2500), *range(3000, 7000)]
    stamps = [(offset, sum(value)) for offset, key, value in tags if key == "rx_time"]
    assert stamps == [(0, pytest.approx(100.5)), (3000, pytest.approx(100.5 + 3.0 + 0.5))]


def test_impossible_hop_plans(gnuradio_python: Path) -> None:
    script = """
from rfvit_radio.hop_plan import HopPlan
words = []
for arguments in json.loads(sys.argv[1]):
    try:
        HopPlan(*arguments)
    except RuntimeError as error:
        words.append(str(error))
print(json.dumps(words))
"""
    expected = {
        "0 frequencies": ([], 1e6),
        "not a finite number": ([1e9, float("nan")], 1e6),
        "sample rate is 0": ([1e9], 0),
        "dwell is 0 s": ([1e9], 1e6, 0),
        "settle -1 s": ([1e9], 1e6, 1, -1),
        "sweeps is -2": ([1e9], 1e6, 1, 1, -2),
    }
    said = result_of(gnuradio_python, script, json.dumps(list(expected.values())))
    assert len(said) == len(expected)
    for words, error in zip(expected, said, strict=True):
        assert words in error


RTL_TCP = """
from rfvit_radio import tune_command
from rfvit_radio.rtl_tcp import RtlTcpSource
import time
tb = gr.top_block()
source = RtlTcpSource("127.0.0.1", int(sys.argv[1]), 100e6, 1e5, sys.argv[2])
head, sink = blocks.head(8, 20000), blocks.vector_sink_c()
tb.connect(source, head, sink)
tb.start()
while not sink.data():
    time.sleep(0.01)
source.to_basic_block()._post(pmt.intern("command"), tune_command(101.5e6))
tb.wait()
data = np.array(sink.data())
print(json.dumps([data.real.tolist(), data.imag.tolist(), tags_of(sink), source.failure]))
"""


@pytest.mark.parametrize(
    ("gain", "asked"),
    [("auto", [("gain_mode", 0), ("agc", 1)]), ("-1.3", [("agc", 0), ("gain_mode", 1), ("gain", 2**32 - 13)])],
)
def test_rtl_tcp_samples_and_retunes(gnuradio_python: Path, gain: str, asked: list[tuple[str, int]]) -> None:
    air = {100_000_000: bytes([0, 255]), 101_500_000: bytes([128, 64])}
    with RtlTcpServer(air, rate=1e5) as server:
        real, imaginary, tags, failure = result_of(gnuradio_python, RTL_TCP, str(server.port), gain)
    assert server.commands == [
        ("sample_rate", 100_000),
        *asked,
        ("frequency", 100_000_000),
        ("frequency", 101_500_000),
    ]
    assert failure is None
    samples = np.array(real) + 1j * np.array(imaginary)
    retuned = int(np.argmax(samples == -0.5j))
    tuned = int(np.argmax(samples != 0))  # a server streams before it has read what the client wants
    assert tuned <= retuned < len(samples)  # on a busy machine, nothing may come between the two
    np.testing.assert_array_equal(samples[tuned:retuned], -1 + 127 / 128 * 1j)
    np.testing.assert_array_equal(samples[retuned:], -0.5j)
    assert [tag for tag in tags if tag[0] == 0] == [[0, "rx_rate", 1e5], [0, "rx_freq", 100e6]]
    ((told, _, frequency),) = [tag for tag in tags if tag[0] > 0]
    assert frequency == 101.5e6
    assert told <= retuned  # the tag is no later than the samples; a settling time is for the ones between


def test_an_rtl_tcp_server_that_hangs_up_is_named(gnuradio_python: Path) -> None:
    script = """
from rfvit_radio.rtl_tcp import RtlTcpSource
tb = gr.top_block()
source, sink = RtlTcpSource("127.0.0.1", int(sys.argv[1]), 100e6, 1e5), blocks.null_sink(8)
tb.connect(source, sink)
tb.run()
print(json.dumps(source.failure))
"""
    with RtlTcpServer({}, rate=1e5, chunks=3) as server:
        failure = result_of(gnuradio_python, script, str(server.port))
    assert failure == f"rtl_tcp server at 127.0.0.1:{server.port}: it closed the connection"


def test_what_is_no_rtl_tcp_server_is_refused(gnuradio_python: Path) -> None:
    script = """
import socket, threading
from rfvit_radio.rtl_tcp import RtlTcpSource
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
threading.Thread(target=lambda: listener.accept()[0].sendall(b"HTTP/1.1 200 OK"), daemon=True).start()
words = []
for number in (port, 1):
    try:
        RtlTcpSource("127.0.0.1", number)
    except RuntimeError as error:
        words.append(str(error))
print(json.dumps(words))
"""
    strange, silent = result_of(gnuradio_python, script)
    assert "is no rtl_tcp server" in strange
    assert "no rtl_tcp server at 127.0.0.1:1 (Connection refused)" in silent


SIGMF = """
from rfvit_radio.sigmf import SigmfSource
tb = gr.top_block()
source, head, sink = SigmfSource(sys.argv[1], True, True), blocks.head(8, 3000100), blocks.vector_sink_c()
tb.connect(source, head, sink)
tb.run()
data = np.array(sink.data())[[0, 1, 2999999, 3000000]]
print(json.dumps([data.real.tolist(), data.imag.tolist(), tags_of(sink)]))
"""


@pytest.mark.parametrize("name", ["", str(EXAMPLE), str(EXAMPLE.with_suffix(".sigmf-data"))])
def test_sigmf_source_is_the_recording(gnuradio_python: Path, name: str) -> None:
    real, imaginary, tags = result_of(gnuradio_python, SIGMF, name)
    raw = np.fromfile(EXAMPLE.with_suffix(".sigmf-data"), np.int8).reshape(-1, 2)[[0, 1, -1, 0]] / 128
    np.testing.assert_array_equal(np.stack([real, imaginary], axis=1), raw)
    assert tags == [[0, "rx_rate", 20e6], [0, "rx_freq", 2.14e9]]


def test_recordings_it_cannot_read_are_named(gnuradio_python: Path, tmp_path: Path) -> None:
    script = """
from rfvit_radio.sigmf import SigmfSource
words = []
for name in sys.argv[1:]:
    try:
        SigmfSource(name)
    except RuntimeError as error:
        words.append(str(error))
print(json.dumps(words))
"""
    metadata = json.loads(EXAMPLE.read_text())
    broken = tmp_path / "broken.sigmf-meta"
    broken.write_text("{")
    real_valued, headers, alone = (tmp_path / f"{name}.sigmf-meta" for name in ("real", "headers", "alone"))
    for path, change in (
        (real_valued, {"core:datatype": "rf32_le"}),
        (headers, {"core:trailing_bytes": 4}),
        (alone, {}),
    ):
        path.write_text(json.dumps(metadata | {"global": metadata["global"] | change}))
    real_valued.with_suffix(".sigmf-data").write_bytes(b"")
    names = [tmp_path / "none.sigmf-meta", broken, real_valued, headers, alone]
    words = result_of(gnuradio_python, script, *map(str, names))
    patterns = ["cannot read", "is not SigMF metadata", "holds real", "use rfvit replay", "no samples at"]
    assert len(words) == len(patterns)
    for word, pattern in zip(words, patterns, strict=True):
        assert pattern in word


def test_the_simulated_tuner_moves_the_band(gnuradio_python: Path) -> None:
    """A tone 3 MHz above the band's centre lies 1 MHz above where the tuner is at 2 MHz above it."""
    script = """
from rfvit_radio import tune_command
from rfvit_radio.simulated import SimulatedTuner
tone = np.exp(2j * np.pi * 3e6 / 20e6 * np.arange(400000)).astype(np.complex64)
tb = gr.top_block()
source, sink = blocks.vector_source_c(tone, False), blocks.vector_sink_c()
tuner = SimulatedTuner(20e6, 2.14e9, 2.142e9, 5e6)
tb.connect(source, tuner, sink)
tb.run()
data = np.array(sink.data())[1000:]
words = []
for arguments in ((2.155e9, 5e6), (2.14e9, 3e6)):
    try:
        SimulatedTuner(20e6, 2.14e9, *arguments)
    except RuntimeError as error:
        words.append(str(error))
print(json.dumps([len(data), float(np.median(np.angle(data[1:] * data[:-1].conj()))), float(abs(data).mean()), words]))
"""
    count, step, amplitude, words = result_of(gnuradio_python, script)
    assert abs(count - 99_000) < 10
    assert step == pytest.approx(2 * np.pi * 1e6 / 5e6, abs=1e-4)
    assert amplitude == pytest.approx(1.0, abs=0.01)
    assert "2155 MHz is outside" in words[0]
    assert "not 3 MS/s; the nearest is 2.85714 MS/s" in words[1]


def test_no_soapy_device_is_one_clear_line(gnuradio_python: Path) -> None:
    script = "from rfvit_radio.soapy import SoapySource\nSoapySource('driver=rtlsdr')"
    done = run_script(gnuradio_python, script)
    if "No module named" in done.stderr:
        pytest.skip("GNU Radio has no gr-soapy here")
    assert "no SoapySDR device matches 'driver=rtlsdr'" in done.stderr.splitlines()[-1]
