# SPDX-License-Identifier: Apache-2.0
"""Durations in few figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Milliseconds:
    """What 50, 95 and 99 % of some durations do not exceed, in ms."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Milliseconds:
        """Of one or more durations in s."""
        p50, p95, p99 = np.percentile(np.asarray(seconds) * 1e3, (50, 95, 99))
        return cls(float(p50), float(p95), float(p99))
