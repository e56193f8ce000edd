# SPDX-License-Identifier: Apache-2.0
"""Results on MQTT, with Mosquitto as the broker."""

from __future__ import annotations

import gc
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from rfvit_rt.datatypes import Activity, Annotation, Emission
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks import mqtt
from rfvit_rt.sinks.mqtt import MAX_QUEUED, PASSWORD, USERNAME, Broker, MqttSink, parse_broker
from rfvit_rt.wire.results import Result, SensingStatus, Status, encode

from ..ports import free_port, wait_for_listener

PATIENCE = 50
ANNOTATION = Annotation("LTE", 1234, 5678, 806e6, 816e6, 0.97, 61.44e6, 811e6)
RESULTS: dict[str, Result] = {
    "annotation": ANNOTATION,
    "emission": Emission("LTE", 806e6, 816e6, 0, 10**9, 12, 0.5, 0.9),
    "status": Status(10**12, 23.04e6, None, 23.03e6, 1, 2, 3, 0.061),
    "activity": Activity("walk", 1.5, 4.25, 150, 275, 0.93, 99.6, 1),
    "sensing": SensingStatus("walk", 0.93, 4.25, 99.6, False, 425, 1, 2, 3, 4, 0.012),
}


def mosquitto() -> str:
    found = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/bin")
    if not found:
        pytest.skip("these tests need the broker Mosquitto; install: sudo apt-get install mosquitto")
    return found


@contextmanager
def started(folder: Path, port: int, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A broker on a port of this machine, and gone after the test."""
    config = folder / f"mosquitto-{port}.conf"
    config.write_text("\n".join([f"listener {port} 127.0.0.1", *(settings or ("allow_anonymous true",))]) + "\n")
    with subprocess.Popen([mosquitto(), "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_listener(port)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    port = free_port()
    with started(tmp_path, port):
        yield Broker("127.0.0.1", port, "lab/rx 1")


@contextmanager
def listening(broker: Broker) -> Iterator[queue.Queue[MQTTMessage]]:
    """What a subscriber gets, from when its subscription holds."""
    messages: queue.Queue[MQTTMessage] = queue.Queue()
    subscribed = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda client, data, message: messages.put(message)
    client.on_subscribe = lambda *rest: subscribed.set()
    client.connect(broker.host, broker.port)
    client.subscribe("#", qos=1)
    client.loop_start()
    try:
        assert subscribed.wait(PATIENCE)
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()


def wait_for(messages: queue.Queue[MQTTMessage], wanted: Callable[[MQTTMessage], bool]) -> list[MQTTMessage]:
    """All messages up to the first that is wanted."""
    seen: list[MQTTMessage] = []
    while not seen or not wanted(seen[-1]):
        seen.append(messages.get(timeout=PATIENCE))
    return seen


def is_offline(message: MQTTMessage) -> bool:
    return message.topic.endswith("/availability") and message.payload == b"offline"


def test_every_result_goes_to_its_topic_in_the_bytes_of_the_wire(broker: Broker) -> None:
    with listening(broker) as messages:
        with MqttSink(broker) as sink:
            for result in RESULTS.values():
                sink.write(result)
        seen = wait_for(messages, is_offline)
    expected = {f"lab/rx 1/{kind}": encode(result) for kind, result in RESULTS.items()}
    found = {message.topic: message.payload for message in seen}
    assert found == expected | {"lab/rx 1/availability": b"offline"}
    assert [message.payload for message in seen if message.topic.endswith("/availability")] == [b"online", b"offline"]
    assert {message.qos for message in seen} == {1}
    assert (sink.dropped, sink.undelivered) == (0, 0)


def test_who_comes_late_gets_the_last_status_and_that_it_is_over(broker: Broker) -> None:
    with MqttSink(broker) as sink:
        for result in RESULTS.values():
            sink.write(result)
    with listening(broker) as messages:
        seen = [messages.get(timeout=PATIENCE) for _ in range(3)]
        assert {message.topic.rpartition("/")[2] for message in seen} == {"status", "sensing", "availability"}
        assert all(message.retain for message in seen)
        assert any(is_offline(message) for message in seen)
        with MqttSink(broker):  # and now there is somebody again
            wait_for(messages, lambda message: message.payload == b"online")


def test_a_run_that_dies_is_told_by_its_will(broker: Broker) -> None:
    code = (
        "import sys; from rfvit_rt.sinks.mqtt import Broker, MqttSink; "
        f"sink = MqttSink(Broker('127.0.0.1', {broker.port}, 'lab/rx 1')); sys.stdin.read()"
    )
    with (
        listening(broker) as messages,
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process,
    ):
        wait_for(messages, lambda message: message.payload == b"online")
        process.kill()
        wait_for(messages, is_offline)


def test_a_broker_that_stands_still_holds_nobody_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "PATIENCE", 1.0)  # at the end; the broker never takes what is left
    port = free_port()
    with started(tmp_path, port) as process, MqttSink(Broker("127.0.0.1", port)) as sink:
        process.send_signal(signal.SIGSTOP)
        for _ in range(20 * MAX_QUEUED):  # far more than all buffers between the two hold
            sink.write(ANNOTATION)
        dropped = sink.dropped
        assert 18 * MAX_QUEUED < dropped < 20 * MAX_QUEUED
        sink.close()
        assert sink.dropped == dropped
        assert 0 < sink.undelivered <= MAX_QUEUED
        assert not [thread for thread in threading.enumerate() if "paho" in thread.name]


def test_however_many_results_wait_availability_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "LONGEST_PAUSE", 1)
    port, told = free_port(), queue.Queue[str]()
    broker = Broker("127.0.0.1", port)
    with started(tmp_path, port):
        sink = MqttSink(broker, told.put)
    with sink:
        assert "lost mqtt://127.0.0.1" in told.get(timeout=PATIENCE)
        for _ in range(2 * MAX_QUEUED):
            sink.write(ANNOTATION)
        assert 0 < sink.dropped <= MAX_QUEUED
        with started(tmp_path, port), listening(broker) as messages:
            assert "is back" in told.get(timeout=PATIENCE)
            wait_for(messages, lambda message: message.topic.endswith("/availability") and message.payload == b"online")
            for _ in range(2 * MAX_QUEUED):
                sink.write(ANNOTATION)
            sink.close()
            wait_for(messages, is_offline)


def test_what_came_while_the_broker_was_away_arrives_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "LONGEST_PAUSE", 1)
    port, told = free_port(), queue.Queue[str]()
    broker = Broker("127.0.0.1", port)
    with started(tmp_path, port):
        sink = MqttSink(broker, told.put)
        sink.write(ANNOTATION)
    with sink:
        assert "lost mqtt://127.0.0.1" in told.get(timeout=PATIENCE)
        late = [replace(ANNOTATION, sample_start=number) for number in range(5)]
        with started(tmp_path, port), listening(broker) as messages:
            for result in late:
                sink.write(result)
            assert "is back" in told.get(timeout=PATIENCE)
            sink.close()
            seen = [message.payload for message in wait_for(messages, is_offline)]
    assert [payload for payload in seen if payload in set(map(encode, late))] == [*map(encode, late)]
    assert sink.undelivered == 0


def test_a_refused_user_is_told_without_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    passwords = tmp_path / "passwords"
    tool = shutil.which("mosquitto_passwd")
    if not tool:
        pytest.skip("this test needs mosquitto_passwd, which comes with Mosquitto")
    subprocess.run([tool, "-c", "-b", passwords, "lab", "right"], check=True, timeout=PATIENCE, capture_output=True)
    with started(tmp_path, port, "allow_anonymous false", f"password_file {passwords}", "user root"):
        with MqttSink(parse_broker(f"mqtt://lab:right@127.0.0.1:{port}")):
            pass
        monkeypatch.setenv(USERNAME, "lab")
        monkeypatch.setenv(PASSWORD, "right")
        with MqttSink(parse_broker(f"mqtt://127.0.0.1:{port}")):
            pass
        monkeypatch.setenv(PASSWORD, "guessed")
        for url in (f"mqtt://127.0.0.1:{port}", f"mqtt://lab:gue%73sed@127.0.0.1:{port}/x"):
            with pytest.raises(OutputError, match=f"127.0.0.1:{port}.*refuses: Not authorized.*{PASSWORD}") as caught:
                MqttSink(parse_broker(url))
            assert "guessed" not in str(caught.value)
            assert "guessed" not in repr(parse_broker(url))


def test_a_broker_that_is_not_there_is_told() -> None:
    with pytest.raises(OutputError, match=r"mqtt://127.0.0.1:\d+/rfvit: Connection refused; is it running"):
        MqttSink(Broker("127.0.0.1", free_port()))
    with pytest.raises(OutputError, match=r"nowhere\.invalid:1883/rfvit"):  # kept for this: RFC 6761
        MqttSink(Broker("nowhere.invalid", 1883))


def test_a_server_that_is_no_broker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "PATIENCE", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,  # takes connections and never answers
        pytest.raises(OutputError, match="does not answer as an MQTT broker"),
    ):
        MqttSink(Broker("127.0.0.1", server.getsockname()[1]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client leaves its socket open
def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    tool = shutil.which("openssl")
    if not tool:
        pytest.skip("this test needs openssl to make a certificate")
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    request = [tool, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, timeout=PATIENCE, capture_output=True)
    tls = (f"certfile {certificate}", f"keyfile {key}", "allow_anonymous true", "user root")
    with started(tmp_path, port, *tls), pytest.raises(OutputError, match=r"(?i)certificate"):
        MqttSink(parse_broker(f"mqtts://127.0.0.1:{port}"))
    gc.collect()  # the warning about that comes now


def test_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(USERNAME, raising=False)
    monkeypatch.delenv(PASSWORD, raising=False)
    assert parse_broker("mqtt://h") == Broker("h", 1883, "rfvit")
    assert parse_broker("mqtts://[::1]/a/b/") == Broker("::1", 8883, "a/b", True)
    assert parse_broker("mqtt://u:p%40@h:1/x%20y") == Broker("h", 1, "x y", False, "u", "p@")
    assert parse_broker("mqtt://u:p@h").url == "mqtt://h:1883/rfvit"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1",
        "http://secret@h",
        "mqtt://",
        "mqtt:///rfvit",
        "mqtt://secret@h:0",
        "mqtt://secret@h:x",
        "mqtt://secret@h:70000",
        "mqtt://secret@[::1/x",
        "mqtt://secret@h/a/#",
        "mqtt://secret@h/+/a",
        "mqtt://secret@h/$SYS",
        "mqtt://secret@h/a%00b",
        "mqtt://secret@h/a?b",
        f"mqtt://secret@h/{'x' * 300}",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(OutputError, match=r"^--mqtt .*expected") as caught:
        parse_broker(url)
    assert "secret" not in str(caught.value)
