# SPDX-License-Identifier: Apache-2.0
"""Messages in order: each reader gets every one that is held once, and learns how many are not."""

from __future__ import annotations

from rfvit_rt.web.log import Log


def test_reading_on() -> None:
    log = Log(100)
    for number in range(5):
        log.append(str(number))
    assert log.read(0, 3) == (["0", "1", "2"], 3, 0)
    assert log.read(3, 3) == (["3", "4"], 5, 0)
    assert log.read(5, 3) == ([], 5, 0)


def test_what_is_no_longer_held_is_counted() -> None:
    log = Log(3)
    for number in range(10):
        log.append(str(number))
    assert (log.begin, log.end) == (7, 10)
    assert log.read(2, 2) == (["7", "8"], 9, 5)
    assert log.read(log.begin, 10) == (["7", "8", "9"], 10, 0)
