# SPDX-License-Identifier: Apache-2.0
"""Activity sensing: from CSI recordings to a trained model, and honest figures of what it can do."""
