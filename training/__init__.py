# SPDX-License-Identifier: Apache-2.0
"""Makes the model files: signal scenes, masked pretraining, finetuning, evaluation, export."""
