# SPDX-License-Identifier: Apache-2.0
"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def test_the_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "Annotation(label='LTE'" in done.stdout


def test_every_option_and_command_it_names_exists() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    helps = ""
    for command in ("segment", "replay", "live", "sense", "replay-csi", "report", "models", "bench", "build", "doctor"):
        rfvit = [sys.executable, "-c", "from rfvit_rt.cli import main; main()", command, "--help"]
        helps += subprocess.run(rfvit, capture_output=True, text=True, timeout=100, check=True).stdout
    for line in re.findall(r"^\.venv/bin/rfvit .*$", text, re.MULTILINE):
        for option in re.findall(r"--[a-z-]+", line.split("#")[0]):
            assert option in helps, f"{option} in {line!r}"
