# SPDX-License-Identifier: Apache-2.0
"""A segmentation on the page: what the run hands out, on its way to the server's thread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rfvit_rt.datatypes import Annotation, IQBlock, Mask
from rfvit_rt.web.board import Board
from rfvit_rt.web.cells import Cells
from rfvit_rt.web.ring import IQRing
from rfvit_rt.web.server import Server
from rfvit_rt.wire.results import Result, Status

MOST_WAITING = 256  # pieces on their way to the server's thread


class SpectrumView:
    """Takes samples, pictures, labels and results of a run, and never makes it wait.

    It is a sink, a viewer and a listener of :mod:`rfvit_rt.outputs`. All work but holding on to things is done in the
    server's thread.

    Parameters
    ----------
    server : Server
    board : Board
        The server's.
    cells : Cells
    ring : IQRing
        Holds the samples that can be saved.
    labels : sequence of str
        Of the model.
    """

    def __init__(self, server: Server, board: Board, cells: Cells, ring: IQRing, labels: tuple[str, ...]) -> None:
        self._server = server
        self._board = board
        self._cells = cells
        self._ring = ring
        self._labels = labels

    def add_block(self, block: IQBlock) -> None:
        """Take up samples as they come."""
        self._ring.add(block)

    def add_picture(self, picture: NDArray[np.float32], mask: Mask) -> None:
        """Take up a window's spectrogram, as :class:`rfvit_rt.outputs.Viewer` has it."""
        self._server.post(lambda: self._cells.add_picture(picture, mask), most=MOST_WAITING)

    def add_mask(self, mask: Mask) -> None:
        """Take up a stretch of labels."""
        if not mask.step_count:
            return
        # Where the stream is has to be known even of what is not shown; it holds on to no pixels.
        start, end, rate = mask.sample_start, mask.sample_end, mask.sample_rate
        n_bins, frequency = mask.probabilities.shape[1], mask.frequency
        self._server.post(lambda: self._place(start, end, rate, n_bins, frequency))
        self._server.post(lambda: self._show(mask), most=MOST_WAITING)

    def write(self, result: Result) -> None:
        """Take up a result."""
        if isinstance(result, Annotation):
            self._server.post(lambda: self._board.add_annotation(result))
        elif isinstance(result, Status):
            self._server.post(lambda: self._board.note_rate(result.achieved_rate))

    # ---- in the server's thread ----

    def _place(
        self, sample_start: int, sample_end: int, sample_rate: float, n_bins: int, frequency: float | None
    ) -> None:
        self._board.listen(sample_start, sample_end, sample_rate, frequency)
        self._board.describe_columns(n_bins, frequency)

    def _show(self, mask: Mask) -> None:
        tile = self._cells.tile(mask, self._board.clock)
        self._board.show(tile)
        counts = np.bincount(tile.class_number.ravel(), minlength=len(self._labels))
        shares = dict(zip(self._labels, (counts / tile.class_number.size).round(6).tolist(), strict=True))
        self._board.add_occupancy(tile.time_start + len(tile.power) * tile.row_seconds / 2, shares)
