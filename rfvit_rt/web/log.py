# SPDX-License-Identifier: Apache-2.0
"""Messages in order, the newest of which are held for who comes late or is slow."""

from __future__ import annotations

from collections import deque
from itertools import islice


class Log:
    """Numbered messages; a reader keeps the number of the one that it wants next.

    Parameters
    ----------
    most : int
        Messages that are held.
    """

    def __init__(self, most: int) -> None:
        self._messages: deque[str] = deque(maxlen=most)
        self.end = 0  # number of the message that will come next

    @property
    def begin(self) -> int:
        """Number of the oldest message that is held."""
        return self.end - len(self._messages)

    def append(self, message: str) -> None:
        """Take up the next message."""
        self._messages.append(message)
        self.end += 1

    def read(self, number: int, most: int) -> tuple[list[str], int, int]:
        """Read on from a message.

        Parameters
        ----------
        number : int
            Of the first message wanted.
        most : int
            Messages to read.

        Returns
        -------
        list of str
        int
            Number of the message to read next.
        int
            How many of those wanted are no longer held.
        """
        missed = max(0, self.begin - number)
        first = number + missed
        read = list(islice(self._messages, first - self.begin, first - self.begin + most))
        return read, first + len(read), missed
