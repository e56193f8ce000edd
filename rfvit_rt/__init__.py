# SPDX-License-Identifier: Apache-2.0
"""Real-time radio sensing: IQ from any GNU Radio flowgraph in, labelled time-frequency regions out."""

__version__ = "0.1.0"
