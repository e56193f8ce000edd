# SPDX-License-Identifier: Apache-2.0
"""The server as pages, strangers and the pipeline meet it."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from rfvit_rt.datatypes import Annotation
from rfvit_rt.emissions import MOST_OPEN
from rfvit_rt.errors import OutputError
from rfvit_rt.sinks.prometheus import Address
from rfvit_rt.web import connection, server
from rfvit_rt.web.board import MOST_EMISSIONS
from rfvit_rt.web.protocol import MAX_CLIENT_BYTES

from .serving import BINS, FREQUENCY, PATIENCE, RATE, STEPS, STRETCH, Served, end_of, page, serving

BOX = {"id": None, "label": "NR", "time_start": 0.01, "time_end": 0.02}
BOX |= {"freq_lower_edge": FREQUENCY - 1e5, "freq_upper_edge": FREQUENCY + 1e5}


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def idle() -> Iterator[Served]:
    """A server that nothing is fed to."""
    with serving() as made:
        yield made


def ask(served: Served, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of an answer to GET."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{served.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, _lower(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _lower(error.headers), error.read().decode()


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def ask_raw(served: Served, head: str) -> str:
    """What comes back to a request that no client would make, until the server hangs up."""
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as raw:
        raw.sendall(head.encode("latin-1"))
        answer = b""
        while part := raw.recv(65536):
            answer += part
        return answer.decode("latin-1")


# ---- what a page is told ----


def test_a_page_learns_what_there_is_and_then_what_is_new(served: Served) -> None:
    served.feed(2)
    served.find(1000)
    with page(served.port) as shown:
        hello = shown.messages[0]
        assert (hello["type"], hello["version"], hello["run"]) == ("hello", 1, "one")
        assert (hello["title"], hello["labels"]) == ("<b>a stream</b>", ["background", "LTE", "NR"])
        assert (hello["sample_rate"], hello["frequency"], hello["n_bins"]) == (RATE, FREQUENCY, BINS)
        box = shown.next("annotation")
        assert (box["id"], box["label"], box["origin"], box["was"]) == (0, "LTE", "model", None)
        assert (box["sample_start"], box["time_start"]) == (1000, 1000 / RATE)
        shown.send("view", columns=BINS, rows_per_second=6400)
        shown.next_tile(time_end=2 * STRETCH / RATE)
        served.feed()
        served.find(2 * STRETCH, label="NR")
        assert shown.next("annotation", id=1)["label"] == "NR"
        tile = shown.next_tile(time_end=3 * STRETCH / RATE)
        assert tile.power.shape[1] == BINS
        assert (tile.power == 10).all()  # 2 dB of 51
        assert (tile.class_number[:, : BINS // 2] == 1).all()
        assert not tile.class_number[:, BINS // 2 :].any()
        status = shown.next("status", position=3 * STRETCH)
        assert (status["windows"], status["clients"], status["ended"]) == (3, 1, False)
        assert status["lost"] == {"transport": 1, "radio": 2, "dropped": 0, "unusable": 0}
        assert status["age"] == {"p50": 0.01, "p95": 0.025, "p99": 0.05}
        rows = shown.next("emissions")["list"]
        assert {row["label"]: row["burst_count"] for row in rows} == {"LTE": 1, "NR": 1}
    shares = shown.of("occupancy")
    assert [round(point["time"], 9) for point in shares] == [0.015, 0.045, 0.075]
    assert shares[0]["shares"] == {"background": 0.5, "LTE": 0.5, "NR": 0.0}
    assert sum(len(tile.power) for tile in shown.tiles) == 3 * STEPS


def test_an_emission_from_before_a_restart_is_past(served: Served) -> None:
    with page(served.port) as shown:
        served.feed(100)
        served.find(round(0.1 * RATE))
        served.stretches = 0  # the sender begins anew, and has the same positions again
        served.feed(10)
        shown.until(lambda _: any(told["seconds"] > 3.2 for told in shown.of("status")))
        (row,) = shown.next("emissions", unlisted=0)["list"]
    assert row["last_seen"] < 1
    assert not row["is_current"]


def test_of_many_emissions_the_last_are_listed_and_the_rest_counted(served: Served) -> None:
    served.feed()
    number = MOST_OPEN + 5
    for i in range(number):
        served.view.write(Annotation("LTE", 10 * i, 10, 1e6 * i, 1e6 * i + 9e5, 0.7, RATE, FREQUENCY))
    with page(served.port) as shown:
        rows = shown.next("emissions", unlisted=number - MOST_EMISSIONS)["list"]
    assert [row["freq_lower_edge"] for row in rows] == [1e6 * i for i in range(number - 1, number - 1 - len(rows), -1)]
    assert len(rows) == MOST_EMISSIONS


def test_tiles_are_no_larger_than_what_the_page_shows(served: Served) -> None:
    with page(served.port) as shown:
        shown.send("view", columns=20, rows_per_second=100)
        served.feed(10)
        tile = shown.next_tile(time_end=0.25)
        assert tile.power.shape[1] == 16
        assert tile.column_width == 4 * RATE / BINS
        assert tile.row_seconds == pytest.approx(64 / 6400)
        shown.send("view", columns=BINS, rows_per_second=6400, since=0.1)
        mark = shown.until(lambda read: not isinstance(read, dict) and not len(read.power))
        assert not isinstance(mark, dict)
        assert mark.time_start == pytest.approx(0.1)
        count = len(shown.tiles)
        shown.next_tile(time_end=0.3)
        assert shown.tiles[count].time_start == pytest.approx(0.1)
        assert sum(len(tile.power) for tile in shown.tiles[count:]) == 10 * STEPS - 640


def test_the_end_is_told_also_to_who_comes_late(served: Served) -> None:
    served.feed(3)
    with page(served.port) as early:
        served.server.end("the file is over")
        assert early.next("end")["reason"] == "the file is over"
        with page(served.port) as late:
            assert late.next("status")["ended"]
            assert late.next("end")["reason"] == "the file is over"
            late.send("view", columns=BINS, rows_per_second=6400)
            late.next_tile(time_end=0.09)


def test_how_it_ended_is_told_before_the_server_is_gone(served: Served) -> None:
    served.feed(3)
    served.find(2 * STRETCH)
    with page(served.port) as shown:
        shown.next("annotation")
        shown.until(lambda _: any(row["is_current"] for told in shown.of("emissions") for row in told["list"]))
        served.server.end("over")
        served.server.close()
        with pytest.raises(ConnectionClosed):
            shown.until(lambda _: False)
        assert shown.of("status")[-1]["ended"]
        assert [row["is_current"] for row in shown.of("emissions")[-1]["list"]] == [False]


def test_two_pages_see_the_same_and_each_other_s_corrections(served: Served) -> None:
    served.feed(2)
    served.find(1000)
    with page(served.port) as one, page(served.port) as other:
        one.send("view", columns=BINS, rows_per_second=6400)
        other.send("view", columns=16, rows_per_second=100)
        for shown in (one, other):
            shown.next("annotation", id=0)
            shown.next_tile(time_end=0.05)
        assert (one.tiles[-1].power.shape[1], other.tiles[-1].power.shape[1]) == (BINS, 16)
        one.send("correct", **BOX | {"id": 0})
        for shown in (one, other):
            box = shown.next("annotation", id=0)
            assert (box["origin"], box["label"], box["was"]["label"]) == ("corrected", "NR", "LTE")
        other.send("correct", **BOX | {"label": "radar"})
        assert one.next("annotation", id=1)["origin"] == "drawn"
        other.send("delete", id=0)
        assert one.next("deleted")["id"] == 0
        with page(served.port) as late:
            late.next("deleted", id=0)
            assert late.of("annotation")[-1]["label"] == "radar"
            served.do(served.board.tick)
            assert late.next("status", clients=3)


def test_a_page_finds_its_way_back_after_a_restart() -> None:
    with serving(run="one") as first:
        port = first.port
        with page(port) as shown:
            assert shown.messages[0]["run"] == "one"
            first.server.close()
            with pytest.raises(ConnectionClosed) as closed:
                shown.until(lambda read: False)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012  # service restart
    with serving(address=Address("127.0.0.1", port), run="two"), page(port) as shown:
        assert shown.messages[0]["run"] == "two"


# ---- a pipeline that does not wait ----


def test_a_slow_page_gets_fewer_tiles_and_holds_nobody_up(served: Served) -> None:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    raw.connect(("127.0.0.1", served.port))
    with page(served.port) as quick, page(served.port, sock=raw, max_queue=1) as slow:
        for shown in (quick, slow):
            shown.send("view", columns=4096, rows_per_second=6400)
        served.feed()
        for shown in (quick, slow):
            shown.next_tile(time_end=0.03)
        rounds = 50
        for number in range(rounds):
            served.feed(4)  # returns, whoever reads or not
            quick.next_tile(time_end=(1 + 4 * (number + 1)) * STRETCH / RATE)
        total = served.stretches * STRETCH / RATE
        slow.next_tile(time_end=total)
        served.do(served.board.tick)
        told = slow.next("status", seconds=pytest.approx(total))
        assert told["frames_dropped"] > 0
        assert quick.next("status", seconds=pytest.approx(total))["frames_dropped"] == 0
    rows = [sum(len(tile.power) for tile in shown.tiles) for shown in (quick, slow)]
    assert rows[0] == served.stretches * STEPS
    assert rows[1] < rows[0] * 0.75
    ends = [end_of(tile) for tile in slow.tiles]
    assert ends == sorted(ends)  # what it gets is in order all the same


def test_a_server_that_is_busy_drops_rows_and_says_so(served: Served) -> None:
    busy, done = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        done.wait(PATIENCE)

    served.do(block)
    assert busy.wait(PATIENCE)
    served.feed(1000)  # nothing is worked off meanwhile, and nothing waits
    served.find(1000 * STRETCH - 10)
    done.set()
    with page(served.port) as shown:
        status = shown.next("status", position=1000 * STRETCH)
        assert 0 < status["rows_dropped"] <= 2000
        served.find(1000 * STRETCH - 5)
        shown.next("annotation", id=1)
        assert shown.of("annotation")[0]["sample_start"] == 1000 * STRETCH - 10  # results are never dropped


# ---- strangers ----


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[" * 10_000, "[]", '{"type":"annotation"}', '{"type":"view","columns":"all"}', b"\x00\xff"],
    ids=repr,
)
def test_a_message_that_is_wrong_is_answered_and_the_connection_goes_on(served: Served, text: str | bytes) -> None:
    with page(served.port) as shown:
        shown.socket.send(text)
        assert shown.next("error")["message"]
        shown.send("view", columns=BINS, rows_per_second=100)
        served.feed(2)
        shown.next_tile()


@pytest.mark.parametrize("values", [{"id": 99}, {"time_start": 7, "time_end": 8}], ids=["no such box", "in the future"])
def test_a_correction_that_cannot_be_is_answered(served: Served, values: dict[str, Any]) -> None:
    served.feed()
    with page(served.port) as shown, page(served.port) as other:
        shown.next("status")
        shown.send("correct", **BOX | values)
        shown.next("error")
        served.find(100)
        other.next("annotation")
        assert not other.of("error")  # whoever did nothing wrong hears nothing of it


@pytest.mark.parametrize("size", [MAX_CLIENT_BYTES + 1, 8 * 2**20])
def test_a_message_that_is_too_large_ends_the_connection(served: Served, size: int) -> None:
    with page(served.port) as shown, page(served.port) as other:
        with suppress(ConnectionClosed):
            shown.socket.send("x" * size)
        with pytest.raises(ConnectionClosed) as closed:
            shown.until(lambda read: False)
        # Whoever still sends may not get to read why.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
        served.feed(3)
        other.next_tile()


def test_a_flood_of_messages_ends_the_connection(served: Served) -> None:
    with page(served.port) as shown:
        with suppress(ConnectionClosed):
            for _ in range(round(connection.BURST) + 50):
                shown.send("view", columns=BINS, rows_per_second=100)
        with pytest.raises(ConnectionClosed) as closed:
            shown.until(lambda read: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"])
def test_other_sites_pages_are_refused(idle: Served, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{idle.port}/stream", origin=origin)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    assert ask(idle, Origin=origin)[0] == 403
    with page(idle.port, origin=f"http://127.0.0.1:{idle.port}"):
        pass


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8470", "localhost.evil.example", "", "[::1", "a b"])
def test_names_of_others_are_refused(idle: Served, host: str) -> None:
    assert ask(idle, Host=host)[0] in (400, 403)
    answer = ask_raw(
        idle,
        f"GET /stream HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    )
    assert answer.startswith(("HTTP/1.1 403", "HTTP/1.1 400"))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "127.0.0.1", "[::1]:{port}", "localhost."])
def test_names_of_this_machine_are_not(idle: Served, host: str) -> None:
    assert ask(idle, Host=host.format(port=idle.port))[0] == 200


def test_two_hosts_are_none(idle: Served) -> None:
    answer = ask_raw(idle, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer.startswith("HTTP/1.1 4")


def test_what_is_open_to_others_takes_a_token() -> None:
    with serving(address=Address("0.0.0.0", 0)) as served:
        token = served.server.access.token
        assert token is not None
        assert len(token) >= 32
        assert served.server.access.url.endswith(f":{served.port}/?token={token}")
        for path in (
            "/",
            "/static/index.html",
            "/health",
            "/?token=",
            "/?token=%C3%A4",
            f"/?token={token}x",
            "/?" + 17 * "a=1&",
        ):
            assert ask(served, path)[0] == 403
        for query in ("", "?token=wrong"):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://127.0.0.1:{served.port}/stream{query}")
            assert refused.value.response.status_code == 403
        status, headers, _ = ask(served, f"/?token={token}")
        assert status == 200
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        kept = cookie.partition(";")[0]
        assert ask(served, "/static/index.html", Cookie=kept)[0] == 200
        theirs = 'foo=a b; x={"a":1}; version=2'  # of another program on this host
        assert ask(served, "/static/index.html", Cookie=f"{theirs}; {kept}")[0] == 200
        assert ask(served, "/static/index.html", Cookie=kept[:-1])[0] == 403
        with page(served.port, f"?token={token}"), page(served.port, additional_headers={"Cookie": kept}):
            pass
        assert ask(served, f"/?token={token}", Host="evil.example")[0] == 403
        assert ask(served, f"/?token={token}", Host=socket.gethostname())[0] == 200


def test_this_machine_alone_takes_none(idle: Served) -> None:
    assert idle.server.access.token is None
    assert idle.server.access.url == f"http://127.0.0.1:{idle.port}/"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static/..%5cserver.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/index.html%00.js",
        "/static/",
        "/../server.py",
        "//etc/passwd",
        "/server.py",
        "/static/protocol.py",
    ],
)
def test_nothing_but_the_page_is_served(idle: Served, path: str) -> None:
    answer = ask_raw(idle, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith("HTTP/1.1 404"), answer
    assert "import" not in answer
    assert "root:" not in answer


def test_nothing_can_be_written_over_http(idle: Served) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = ask_raw(idle, f"{method} / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert answer.startswith("HTTP/1.1 405")


def test_the_page_and_what_a_browser_may_do_with_it(idle: Served) -> None:
    status, headers, text = ask(idle)
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    for name in ("script", "stylesheet"):
        assert name in text
    assert "<b>a stream</b>" not in text  # nothing of a stream is ever put into markup
    status, headers, _ = ask(idle, "/static/protocol.js")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert json.loads(ask(idle, "/health")[2]) == {"status": "ok"}
    assert ask(idle, "/nothing")[1]["content-security-policy"]


def test_an_answer_of_refusal_quotes_nothing(idle: Served) -> None:
    status, headers, text = ask(idle, "/<script>", Host="<script>.example")
    assert status == 403
    assert "script" not in text
    assert headers["content-type"].startswith("text/plain")


def test_pages_are_limited(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CLIENTS", 2)
    with page(served.port), page(served.port):
        with connect(f"ws://127.0.0.1:{served.port}/stream") as third:
            assert "2 pages are open already" in json.loads(third.recv(PATIENCE))["message"]
            with pytest.raises(ConnectionClosed) as closed:
                third.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013  # try again later
    deadline = time.monotonic() + PATIENCE
    while served.board.clients:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with page(served.port):
        pass


def test_who_says_nothing_is_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    assert ask_raw(served, "") == ""
    assert ask_raw(served, "GET / HTTP/1.1\r\nHost: ") == ""
    with page(served.port) as shown:
        for _ in range(2):
            shown.next("status")  # more than a second later
        served.feed(2)
        shown.next_tile()


def test_a_head_that_is_too_large_is_refused(idle: Served) -> None:
    answer = ask_raw(idle, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + "x" * server.MAX_HEAD + "\r\n")
    assert answer.startswith("HTTP/1.1 4")


# ---- where it listens ----


def test_a_port_in_use_is_refused_with_advice(idle: Served) -> None:
    with (
        pytest.raises(OutputError, match=rf"{idle.port}.*in use.*--web-address"),
        serving(address=Address("127.0.0.1", idle.port)),
    ):
        pass


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid", "x" * 300])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(OutputError, match="address of this machine"), serving(address=Address(host, 0)):
        pass
