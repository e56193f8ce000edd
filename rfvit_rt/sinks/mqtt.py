# SPDX-License-Identifier: Apache-2.0
"""Results as JSON to an MQTT broker, in the same bytes as on ZeroMQ, a topic for each type.

=========================== ========================================================== ======== ============
Topic                       Message                                                    QoS      Retained
=========================== ========================================================== ======== ============
``PREFIX/annotation``       an annotation                                              1        no
``PREFIX/emission``         an emission, at a run's end or when it is let go           1        no
``PREFIX/activity``         an activity                                                1        no
``PREFIX/status``           how segmentation is doing, about once a second             1        yes
``PREFIX/sensing``          how sensing is doing, one a window                         1        yes
``PREFIX/availability``     ``online``, or ``offline``: at the end, and as the will    1        yes
=========================== ========================================================== ======== ============

A retained status outlives the run that sent it; the availability tells whether it is of now. QoS 1 is at least once:
after a broken connection a message can come twice.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from rfvit_rt.errors import OutputError
from rfvit_rt.wire.results import Result, encode, to_dict

DEFAULT_PREFIX = "rfvit"
USERNAME, PASSWORD = "RFVIT_MQTT_USERNAME", "RFVIT_MQTT_PASSWORD"
PORTS = {"mqtt": 1883, "mqtts": 8883}
RETAINED = ("status", "sensing")
MAX_QUEUED = 1000  # results that wait for a broker that is slow or away; what comes then is dropped
MAX_UNACKNOWLEDGED = 100  # of them on their way at once
MAX_PREFIX = 256
PATIENCE = 5.0  # seconds for the broker to answer at the start, and to take what is left at the end
KEEPALIVE = 20  # seconds of silence after which the broker is asked whether it is there
LONGEST_PAUSE = 10  # seconds between two tries to connect again


@dataclass(frozen=True)
class Broker:
    """A broker, and the topic that all of ours begin with; its representation keeps the password to itself.

    Attributes
    ----------
    host : str
    port : int
    prefix : str
        Topics are ``prefix/annotation`` and so on.
    tls : bool
        Whether to encrypt, and to check the broker's certificate as this machine checks all.
    username, password : str or None
    """

    host: str
    port: int
    prefix: str = DEFAULT_PREFIX
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its URL without user and password, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}/{self.prefix}"


def parse_broker(url: str) -> Broker:
    """Read ``mqtt://HOST[:PORT][/PREFIX]``, or ``mqtts://`` for TLS.

    User and password come from the environment, ``RFVIT_MQTT_USERNAME`` and ``RFVIT_MQTT_PASSWORD``, or from the URL,
    ``mqtt://USER:PASSWORD@HOST``, where other users of this machine can see them in the list of processes.

    Raises
    ------
    OutputError
        If it is no such URL; the message does not repeat it, since a password may be in it.

    Examples
    --------
    >>> parse_broker("mqtt://127.0.0.1/lab").url
    'mqtt://127.0.0.1:1883/lab'
    """
    expected = "expected mqtt://HOST:PORT/PREFIX, or mqtts:// for TLS"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise OutputError(f"--mqtt is no valid URL; {expected}") from None
    if parts.scheme not in PORTS or not host or port == 0 or "?" in url or "#" in url:
        raise OutputError(f"--mqtt is not the URL of a broker; {expected}")
    prefix = unquote(parts.path).strip("/") or DEFAULT_PREFIX
    if len(prefix) > MAX_PREFIX or not re.fullmatch(r"[^+#\0$][^+#\0]*", prefix) or not prefix.isprintable():
        raise OutputError(
            f"--mqtt names the topic {ascii(prefix)[:40]}; expected at most {MAX_PREFIX} printable characters without "
            "+ and #, and no $ at the start, which MQTT keeps for itself"
        )
    return Broker(
        host,
        port or PORTS[parts.scheme],
        prefix,
        parts.scheme == "mqtts",
        os.environ.get(USERNAME) if parts.username is None else unquote(parts.username),
        os.environ.get(PASSWORD) if parts.password is None else unquote(parts.password),
    )


class MqttSink:
    """Publishes every result, and never waits for the broker.

    While the broker is away it is tried again. `MAX_QUEUED` results wait meanwhile; what comes then is dropped, and
    counted.

    Parameters
    ----------
    broker : Broker
        Where to publish.
    tell : callable
        Told, in a line each, when the broker is lost and when it is back; called by another thread.

    Raises
    ------
    OutputError
        If the broker cannot be reached, or refuses.

    Attributes
    ----------
    dropped : int
        Results that were not published because too many were waiting.
    undelivered : int
        Results that the broker had not acknowledged when the sink was closed.
    """

    def __init__(self, broker: Broker, tell: Callable[[str], None] = lambda line: None) -> None:
        self.dropped = 0
        self.undelivered = 0
        self._broker = broker
        self._tell = tell
        self._waiting = 0  # published and not acknowledged
        self._counting = threading.Condition()
        self._closing = False
        self._answered = threading.Event()
        self._answer: ReasonCode | None = None
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"rfvit-{uuid.uuid4().hex[:12]}")
        self._client.max_inflight_messages_set(MAX_UNACKNOWLEDGED)
        self._client.reconnect_delay_set(1, LONGEST_PAUSE)
        self._client.will_set(f"{broker.prefix}/availability", "offline", qos=1, retain=True)
        if broker.username is not None:
            self._client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            self._client.tls_set()
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._connect()

    def write(self, result: Result) -> None:
        """Publish one result, or count it as dropped."""
        with self._counting:
            is_full = self._waiting >= MAX_QUEUED
        if is_full:
            self.dropped += 1
            return
        kind = to_dict(result)["type"]
        self._publish(kind, encode(result), retain=kind in RETAINED)

    def close(self) -> None:
        """Say goodbye, after giving the broker some seconds to take what is waiting."""
        self._closing = True
        self._publish("availability", b"offline", retain=True)
        with self._counting:
            self._counting.wait_for(lambda: not self._waiting or not self._client.is_connected(), PATIENCE)
            waiting = self._waiting
        self.undelivered = max(0, waiting - 1)  # not the goodbye
        self._client.disconnect()
        connection = self._client.socket()
        if waiting and isinstance(connection, socket.socket):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # or the client would wait for a broker that reads no more
        self._client.loop_stop()

    def __enter__(self) -> MqttSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _publish(self, topic: str, payload: bytes, retain: bool) -> None:
        """Send it, or have it wait for the connection; the client's queue has no bound, so availability has room."""
        with self._counting:
            self._waiting += 1
        self._client.publish(f"{self._broker.prefix}/{topic}", payload, qos=1, retain=retain)

    def _connect(self) -> None:
        broker = self._broker
        self._client.connect_timeout = PATIENCE
        try:
            self._client.connect(broker.host, broker.port, KEEPALIVE)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise OutputError(f"cannot reach the MQTT broker {broker.url}: {reason}; is it running there?") from None
        self._client.loop_start()
        self._answered.wait(PATIENCE)
        if self._answer is None or self._answer.is_failure:
            self._closing = True
            self._client.disconnect()
            self._client.loop_stop()
            self._refuse()

    def _refuse(self) -> None:
        if self._answer is None:
            raise OutputError(f"{self._broker.url} does not answer as an MQTT broker; is it one?")
        raise OutputError(
            f"the MQTT broker {self._broker.url} refuses: {self._answer}; user and password come from {USERNAME} and "
            f"{PASSWORD}"
        )

    # --- called by the client's thread ---

    def _on_connect(
        self, client: Client, data: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        first, self._answer = self._answer is None, reason
        if not reason.is_failure:
            self._publish("availability", b"online", retain=True)
            if not first:
                self._tell(f"MQTT: {self._broker.url} is back")
        self._answered.set()

    def _on_disconnect(
        self, client: Client, data: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._answered.set()
        with self._counting:
            self._counting.notify_all()
        if self._answer is not None and not self._answer.is_failure and not self._closing:
            self._tell(f"MQTT: lost {self._broker.url} ({reason}); results wait, and it is tried again")

    def _on_publish(
        self, client: Client, data: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._counting:
            self._waiting -= 1
            self._counting.notify_all()
