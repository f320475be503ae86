from __future__ import annotations

import pytest

from medssl.models.encoder_file import EncoderCard


@pytest.fixture
def encoder_card():
    """Makes a valid card for an encoder; keyword arguments replace values."""

    def make(encoder, **changes) -> EncoderCard:
        values = {
            "medssl_version": "0.1.0",
            "backbone": encoder.backbone.name,
            "stem": encoder.backbone.stem,
            "input_size": 32,
            "feature_dim": encoder.feature_dim,
            "normalization": {"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()},
            "preprocessing": {"store_size": 37, "window": "auto", "steps": ["window", "resize"]},
            "batch_norm": "as_loaded",
            "init": {"source": "random", "sha256": None},
            "method": {"name": "simsiam", "settings": {"projector_dim": 64}},
            "epochs": 3,
            "samples_seen": 300,
            "seed": 0,
            "metrics": {"loss": -0.5, "knn": None},
            "synthetic": True,
        }
        return EncoderCard.model_validate(values | changes)

    return make
