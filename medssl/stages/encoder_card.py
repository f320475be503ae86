"""What encoder.json says about an arm's encoder."""

from __future__ import annotations

import math

import medssl
from medssl.data.archive import Archive
from medssl.methods import method_settings
from medssl.models.encoder import Encoder
from medssl.models.encoder_file import EncoderCard
from medssl.models.weights import InitRecord
from medssl.stages.provenance import Provenance
from medssl.stages.workspace import Workspace

STEPS = [  # of the preprocessing, for people who read encoder.json
    "decode one grey image, full dynamic range",
    "resize the longer side to store_size with antialiasing, pad to the square with black",
    "map stored values to units, apply the window, invert where high values are dark, clip to [0, 1]",
    "resize to input_size with antialiasing",
    "repeat the grey channel, subtract mean, divide by std (inside the encoder)",
]


def encoder_card(
    work: Workspace,
    archive: Archive,
    encoder: Encoder,
    init: InitRecord,
    known: Provenance,
    *,
    arm: str,
    run: int,
    epochs: int,
    seen: int,
    metrics: dict[str, float],
) -> EncoderCard:
    """What encoder.json says about an arm's encoder."""
    study = work.study
    reading = [work.cards[source].read for source in study.sources_of(arm)]
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    return EncoderCard(
        medssl_version=medssl.__version__,
        backbone=study.encoder.backbone,
        stem=study.encoder.stem,
        group_norm=study.encoder.group_norm,
        input_size=study.encoder.input_size,
        feature_dim=encoder.feature_dim,
        normalization={"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()},
        preprocessing={
            "store_size": study.store_size,
            "window": study.encoder.window,
            "channels": "rgb" if any(options.channels == "rgb" for options in reading) else "grey",
            # Data sets may differ in this; a file of the user's is then read as those of the first.
            "file_window": reading[0].window,
            "steps": STEPS,
        },
        batch_norm=study.encoder.batch_norm,
        init={"source": init.source, "sha256": init.sha256, "saw": known.saw},
        method={"name": study.arms[arm].method, "settings": method_settings(study.pretrain.method).model_dump(mode="json")},
        epochs=epochs,
        samples_seen=seen,
        seed=study.seed_of_run(run),
        run=run,
        data_digest=archive.data_digest,
        excluded_digest=archive.summary["splits"]["excluded_digest"],
        metrics=finite,
        synthetic=work.synthetic,
    )
