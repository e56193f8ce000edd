# SPDX-License-Identifier: Apache-2.0
"""Signals with real structure, and the channels and receivers they pass through."""
