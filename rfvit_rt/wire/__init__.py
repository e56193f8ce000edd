# SPDX-License-Identifier: Apache-2.0
"""Bytes to datatypes and back: pure functions that need NumPy alone."""
