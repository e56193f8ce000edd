# SPDX-License-Identifier: Apache-2.0
"""Where samples come from: one file a kind of source."""
