# SPDX-License-Identifier: Apache-2.0
"""``python -m training.experiments``; worker processes cannot import what a module of this name holds."""

from training.command import run
from training.experiments.make import main

if __name__ == "__main__":
    run(main)
