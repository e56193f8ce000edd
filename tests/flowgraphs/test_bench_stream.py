# SPDX-License-Identifier: Apache-2.0
"""The flowgraph that `rfvit bench` reads: real, in GNU Radio's Python, with rfvit's own source at the other end."""

from __future__ import annotations

import itertools
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from rfvit_rt.errors import StreamError
from rfvit_rt.flowgraph import Flowgraph, describe, find_flowgraph
from rfvit_rt.sinks.sigmf import write_recording
from rfvit_rt.sources.recording import Recording, open_recording
from rfvit_rt.sources.zmq import ZmqConfig, ZmqSource, parse_zmq_url

COUNT = 30_011  # no multiple of any buffer

pytestmark = pytest.mark.usefixtures("gnuradio_python")


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """Samples that say their position, at a rate that is not the one they are sent at."""
    ramp = (np.arange(COUNT) - 1j * np.arange(COUNT)).astype(np.complex64) / 32768
    return open_recording(write_recording(tmp_path / "ramp", ramp, 1e6, 2.4e9, datatype="ci16_le"))


def stream(recording: Recording, *arguments: str) -> Flowgraph:
    return Flowgraph(find_flowgraph("bench_stream.py"), arguments, describe(recording))


def config(flowgraph: Flowgraph, **options: object) -> ZmqConfig:
    return parse_zmq_url(flowgraph.endpoint.replace("tcp://", "zmq+pull://"), tags=True, **options)


def test_the_samples_come_again_and_again_bit_for_bit_and_say_their_rate(recording: Recording) -> None:
    (expected,) = [block.samples for block in recording.blocks()]
    with stream(recording, "--sample-rate", "2e6") as flowgraph:
        count = 5 * COUNT + 7
        with ZmqSource(config(flowgraph, sample_count=count)) as source:
            time.sleep(0.2)
            assert source.statistics.messages == 0  # it waits for the word
            flowgraph.start()
            blocks = list(source)
            statistics = source.statistics
    assert statistics.transport_lost == statistics.dropped == statistics.radio_lost == 0
    assert {block.sample_rate for block in blocks} == {2e6}
    first = blocks[0].sample_start
    came = np.concatenate([block.samples for block in blocks])
    np.testing.assert_array_equal(came, expected[np.arange(first, first + count) % COUNT])


def test_it_keeps_to_the_rate_and_not_to_its_reader(recording: Recording) -> None:
    """A reader that pauses finds samples missing, exactly as many as the positions say."""
    with stream(recording, "--sample-rate", "40e6", "--high-water-mark", "2") as flowgraph:
        slow = config(flowgraph, sample_count=60_000_000, ring_samples=100_000, receive_hwm=1)
        with ZmqSource(slow) as source:
            time.sleep(0.2)
            flowgraph.start()
            time.sleep(1.0)  # nobody takes blocks out of the ring
            blocks = list(source)
            statistics = source.statistics
    missing = sum(
        later.sample_start - block.sample_start - len(block.samples) for block, later in itertools.pairwise(blocks)
    )
    assert missing > 0
    assert statistics.transport_lost >= missing  # what is lost at the very end has no block after it
    assert statistics.samples_received + statistics.transport_lost == 60_000_000


def test_an_address_that_is_taken_is_an_error_in_one_line(recording: Recording) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        flowgraph = stream(recording, "--sample-rate", "1e6", "--address", address)
        with pytest.raises(StreamError, match=r"cannot build the flowgraph: cannot listen at .* in use"), flowgraph:
            pass
