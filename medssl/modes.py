"""The modes of fine-tuning: what is trained on a label budget, and how each is called."""

from __future__ import annotations

MODES = {
    "linear": "Linear probe",
    "linear_recalibrated": "Linear probe, BatchNorm recalibrated",
    "knn": "Nearest neighbours",
    "full": "Full fine-tuning",
    "linear_then_full": "Linear probe, then full fine-tuning",
    "partial": "Partial fine-tuning",
    "layer_decay": "Full fine-tuning, layer-wise rates",
}
"""Mode -> its name on tables and pages, in the order in which they are shown."""
