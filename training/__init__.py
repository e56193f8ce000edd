# SPDX-License-Identifier: Apache-2.0
"""Makes the model files: signal scenes, masked pretraining, finetuning, evaluation, export."""

import sys
from importlib.util import find_spec

if missing := [name for name in ("torch", "dacite", "safetensors", "sklearn") if find_spec(name) is None]:
    sys.exit(f"error: training needs {', '.join(missing)}; install with: pip install -e '.[train]'")
