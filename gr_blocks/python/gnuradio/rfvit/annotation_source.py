# SPDX-License-Identifier: GPL-3.0-or-later
"""rfvit Annotation Source: results → messages that a flowgraph can act on."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

import pmt
from gnuradio import gr
from gnuradio.rfvit.result_socket import DEFAULT_ENDPOINT, ResultSocket, check_endpoint
from rfvit_rt.datatypes import Annotation, Emission
from rfvit_rt.wire.results import Result, Status
from rfvit_rt.wire.summary import WindowSummary

PORTS = {Annotation: "annotations", WindowSummary: "windows", Emission: "emissions", Status: "status"}
KINDS = ("annotation", "window", "emission", "status")
PATIENCE = 0.1  # s between two looks at whether to end


class AnnotationSource(gr.basic_block):
    """Receives what ``rfvit segment ... --publish ENDPOINT`` finds and sends it on as messages.

    Every message is a PMT dictionary. Positions are those of the stream that rfvit reads. If it reads a ZeroMQ sink of
    this flowgraph that passes tags, such as rfvit IQ Sink, they are the offsets of the items that went into that sink.

    ============= ==================================================================================================
    port          keys
    ============= ==================================================================================================
    annotations   one for every box: label (symbol), sample_start, sample_count (long), freq_lower_edge,
                  freq_upper_edge (Hz), confidence (0 to 1), sample_rate (Hz), frequency (centre, Hz)
    windows       one for every window of about 30 ms: sample_start, sample_count, sample_rate, frequency, labels
                  (vector of symbols, the first is background), shares (f64 vector: share of the pixels that each
                  label has), steps, bins (long) and class_map (u8 vector, step after step: number of the label)
    emissions     at the end of rfvit's run, one for every recurring band (where there are thousands, earlier for those
                  not seen for longest): label, freq_lower_edge, freq_upper_edge, first_seen, last_seen (long),
                  burst_count (long), duty_cycle, confidence
    status        about once a second: position (long), sample_rate, frequency, achieved_rate, transport_lost,
                  radio_lost, dropped (long), sample_age (s)
    ============= ==================================================================================================

    Edges are absolute where the centre frequency is known, else relative to the centre. What is unknown (frequency,
    sample_age) is nil. Bytes that are no valid result are dropped and counted.

    Parameters
    ----------
    endpoint : str
        What was given to ``--publish``. rfvit may start before or after the flowgraph, and again.

    Raises
    ------
    StreamError
        If the endpoint is not one.
    """

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT) -> None:
        gr.basic_block.__init__(self, "rfvit Annotation Source", None, None)
        self._endpoint = check_endpoint(endpoint)
        self._ports = {kind: pmt.intern(name) for kind, name in PORTS.items()}
        for port in self._ports.values():
            self.message_port_register_out(port)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused = 0

    def refused(self) -> int:
        """Return the number of messages so far that were no valid results."""
        return self._refused

    def start(self) -> bool:
        """Begin to listen."""
        self._ending.clear()
        self._thread = threading.Thread(target=self._listen, name="rfvit-annotations", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> bool:
        """End listening; returns when the thread has ended."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return True

    def _listen(self) -> None:
        socket = ResultSocket(self._endpoint, KINDS)
        before = self._refused
        try:
            while not self._ending.is_set():
                socket.wait(PATIENCE)
                for result in socket.results():
                    self._send(result)
                self._refused = before + socket.refused
        finally:
            socket.close()

    def _send(self, result: Result) -> None:
        port = self._ports.get(type(result))
        if port is not None:
            self.message_port_pub(port, to_pmt(result))


def to_pmt(result: Result) -> Any:
    """Give a result as a PMT dictionary; the keys are those of `AnnotationSource`."""
    if not isinstance(result, WindowSummary):
        return pmt.to_pmt(asdict(result))
    fields = dict(vars(result))
    class_map = fields.pop("class_map")
    shares = fields.pop("shares")
    fields["labels"] = list(result.labels)  # a vector: tuples of PMTs are limited to ten
    fields["steps"], fields["bins"] = class_map.shape
    message = pmt.to_pmt(fields)
    message = pmt.dict_add(message, pmt.intern("shares"), pmt.init_f64vector(len(shares), shares))
    cells = class_map.ravel().tolist()
    return pmt.dict_add(message, pmt.intern("class_map"), pmt.init_u8vector(len(cells), cells))
