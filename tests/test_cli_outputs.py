# SPDX-License-Identifier: Apache-2.0
"""Metrics and MQTT as their user meets them: `rfvit` in a process of its own, a scraper and a broker beside it."""

from __future__ import annotations

import queue
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from prometheus_client.parser import text_string_to_metric_families

from rfvit_rt.wire.csi import encode_csi
from rfvit_rt.wire.gnuradio import StreamFormat, StreamMessage, Tag, encode_stream_message

from .csi_streams import channels, frames, make_model
from .ports import free_port, wait_for_listener
from .test_cli import EXAMPLE, PATIENCE, RFVIT, check_refused, rfvit

Figures = dict[str, float]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def sender(port: int) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.sndtimeo = PATIENCE * 1000
        socket.bind(f"tcp://127.0.0.1:{port}")
        yield socket


@contextmanager
def measured(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rfvit` with metrics on a free port, and their address as it tells it."""
    command = [*RFVIT, *map(str, arguments), "--metrics", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = next((line for line in process.stdout if line.startswith("Metrics: ")), "")
            url = re.fullmatch(r"Metrics: (http://127\.0\.0\.1:\d+/metrics)\n", told)
            assert url, process.communicate()
            yield process, url[1]
        finally:
            process.kill()


def scrape(url: str) -> Figures:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        families = list(text_string_to_metric_families(answer.read().decode("utf-8")))
    return {
        " ".join([sample.name, *(value for name, value in sample.labels.items())]): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def scrape_until(url: str, wanted: Callable[[Figures], bool], process: subprocess.Popen[str]) -> Figures:
    deadline = time.monotonic() + PATIENCE
    while not wanted(figures := scrape(url)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, figures
        time.sleep(0.05)
    return figures


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    return output


def test_a_live_stream_is_scraped_while_it_goes(port: int, sender: zmq.Socket[bytes]) -> None:
    rate, size, count = 2e6, 20_000, 20
    samples = np.random.default_rng(2).standard_normal((size * count, 2), np.float32).view(np.complex64)[:, 0]
    tags = (Tag(0, "rx_rate", rate), Tag(0, "rx_freq", 8e8), Tag(0, "simulated", True))
    with measured("segment", f"zmq+pull://127.0.0.1:{port}", "--tags", "--idle-timeout", "0") as (process, url):
        before = scrape(url)
        assert before["rfvit_samples_total"] == before["rfvit_windows_total"] == before["rfvit_simulated"] == 0
        assert "rfvit_sample_rate_hertz" not in before
        for start in range(0, len(samples), size):
            if start == 10 * size:
                continue  # lost on the way
            message = StreamMessage(samples[start : start + size], start, () if start else tags)
            sender.send_multipart(encode_stream_message(message, StreamFormat(tags=True)))
        # A window of 80,000 samples begins every 60,000: three before the gap, two after it; one waits for the end.
        after = scrape_until(url, lambda figures: figures["rfvit_stage_seconds_count results"] == 5, process)
        assert after["rfvit_samples_total"] == size * (count - 1)
        assert after["rfvit_windows_total"] == after["rfvit_sample_age_seconds_count"] == 5
        assert after["rfvit_lost_samples_total transport"] == size
        for cause in ("radio", "dropped", "unusable"):
            assert after[f"rfvit_lost_samples_total {cause}"] == 0
        assert (after["rfvit_recorded"], after["rfvit_simulated"]) == (0, 1)
        assert after["rfvit_sample_rate_hertz"] == rate
        assert after["rfvit_frequency_hertz"] == 8e8
        stages = [after[f"rfvit_stage_seconds_sum {stage}"] for stage in ("windowing", "spectrogram", "inference")]
        assert all(seconds > 0 for seconds in stages)
        assert sum(stages) == pytest.approx(after["rfvit_sample_age_seconds_sum"])
        assert any(name.startswith("rfvit_model_info spectrum-small ") for name in after)
        assert "SIMULATED" in stop(process)
    with pytest.raises(OSError, match="refused"):
        scrape(url)


def test_sensing_is_scraped_while_it_goes(port: int, sender: zmq.Socket[bytes], tmp_path: Path) -> None:
    model = make_model(tmp_path / "motion.onnx")
    stream = [f"zmq+pull://127.0.0.1:{port}", "--idle-timeout", "0", "--threads", "1", "--hop", "0.4"]
    csi = channels([False, True, False], 2.4)
    with measured("sense", *stream, "--model", model.path) as (process, url):
        for frame in frames(csi):
            if frame.frame_index not in (50, 51):
                sender.send(encode_csi(frame))
        sender.send(b"I am no frame")
        done = scrape_until(url, lambda figures: figures["rfvit_csi_malformed_packets_total"] == 1, process)
        done = scrape_until(url, lambda figures: figures["rfvit_csi_frames_total"] == len(csi) - 2, process)
        assert done["rfvit_csi_lost_frames_total"] == 2
        done = scrape_until(url, lambda figures: "rfvit_activities_total still" in figures, process)
        assert done["rfvit_windows_total"] == done["rfvit_result_age_seconds_count"] > 5
        assert done["rfvit_recorded"] == 0
        assert any(name.startswith("rfvit_model_info motion ") for name in done)
        stop(process)


def test_metrics_that_cannot_be_served_are_refused(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        done = rfvit("segment", EXAMPLE, "--metrics", str(port), "--output", "/dev/shm/rfvit-none.sigmf-meta")
        check_refused(done, str(port), "in use", "another port")


@pytest.mark.parametrize("option", ["--metrics", "--mqtt", "--publish"])
def test_an_empty_address_is_refused(option: str) -> None:
    """As where a shell's variable was not set: what was asked for would be missing without a word."""
    done = rfvit("segment", EXAMPLE, option, "", "--output", "/dev/shm/rfvit-none.sigmf-meta")
    check_refused(done, "expected", "HOST" if option != "--publish" else "endpoint")


def test_mqtt_carries_the_lines_of_jsonl(port: int, tmp_path: Path) -> None:
    broker = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/bin")
    if not broker:
        pytest.skip("this test needs the broker Mosquitto; install: sudo apt-get install mosquitto")
    for suffix in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(EXAMPLE.with_suffix(suffix), tmp_path)
    url = f"mqtt://someone:geheim@127.0.0.1:{port}/lab"
    recording, lines = tmp_path / EXAMPLE.name, tmp_path / "a.jsonl"
    done = rfvit("segment", recording, "--mqtt", url)
    check_refused(done, f"mqtt://127.0.0.1:{port}/lab", "refused")
    assert "geheim" not in done.stderr + done.stdout

    seen: queue.Queue[tuple[str, bytes]] = queue.Queue()
    subscribed = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda client, data, message: seen.put((message.topic, message.payload))
    client.on_subscribe = lambda *rest: subscribed.set()
    with subprocess.Popen([broker, "-p", str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_listener(port)
            client.connect("127.0.0.1", port)
            client.subscribe("lab/#", qos=1)
            client.loop_start()
            assert subscribed.wait(PATIENCE)
            done = rfvit("segment", recording, "--mqtt", url, "--jsonl", lines, "--metrics", "0.0.0.0:0")
            assert done.returncode == 0, done.stderr
            assert re.search(r"Metrics: http://0\.0\.0\.0:\d+/metrics, open to whoever can reach it", done.stdout)
            got = [seen.get(timeout=PATIENCE)]
            while got[-1] != ("lab/availability", b"offline"):
                got.append(seen.get(timeout=PATIENCE))
        finally:
            client.disconnect()
            client.loop_stop()
            process.terminate()
    results = [payload for topic, payload in got if topic != "lab/availability"]
    assert results == lines.read_bytes().splitlines()
    assert {topic for topic, _ in got} == {"lab/annotation", "lab/emission", "lab/status", "lab/availability"}
