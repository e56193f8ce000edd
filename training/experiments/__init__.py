# SPDX-License-Identifier: Apache-2.0
"""The experiments about segmentation: what is asked, how it is answered, and the tables that come of it."""
