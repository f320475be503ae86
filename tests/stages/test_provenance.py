"""What is known of the patients that an arm's initial weights may have seen."""

from __future__ import annotations

import dataclasses

import pytest

from medssl.files import digest_of
from medssl.models.encoder import build_encoder
from medssl.models.encoder_file import EncoderCard
from medssl.models.weights import InitRecord
from medssl.stages.provenance import NOBODY, provenance_of

OURS, THEIRS = digest_of(["a", "b"]), digest_of(["a", "c"])


def record(excluded: str | None = OURS, began: str = "random", saw: str | None = None, method: bool = True) -> InitRecord:
    encoder = build_encoder("resnet18", "small")
    card = EncoderCard(
        medssl_version="0.1.0",
        backbone="resnet18",
        stem="small",
        input_size=32,
        feature_dim=512,
        normalization={"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()},
        preprocessing={"store_size": 37, "window": "auto", "steps": []},
        batch_norm="as_loaded",
        init={"source": began, "sha256": None, "saw": saw},
        method={"name": "simsiam", "settings": {}} if method else None,
        seed=0,
        excluded_digest=excluded,
        synthetic=True,
    )
    return InitRecord("encoder: mine", "a" * 64, 10, card=card)


@pytest.mark.parametrize(
    ("init", "saw", "words"),
    [
        (InitRecord("random", None, 1), "nothing", "have seen nothing"),
        (InitRecord("imagenet: x.pth", "a" * 64, 1), "imagenet", "no image of this study"),
        (InitRecord("imagenet_statistics: x.pth", "a" * 64, 1), "imagenet", "no image of this study"),
        (InitRecord("file: ResNet50.pt", "a" * 64, 1), "unknown", "unknown what it was trained on"),
        (record(), "proven", "proven: the same images were kept"),
        (record(began="imagenet: x.pth"), "proven", "proven"),
        (record(began="encoder: older", saw="proven"), "proven", "proven"),
        (record(began="encoder: older", saw="not_checked"), "not_checked", "began from encoder: older, which may have seen"),
        (record(began="file: x.pth"), "not_checked", "began from file: x.pth"),
        (record(THEIRS), "not_checked", "its pretraining may have seen these test patients: not checked"),
        (record(None), "not_checked", "may have seen these test patients"),
        (record(method=False), "unknown", "unknown what it was trained on"),
    ],
)
def test_each_source(init, saw, words):
    known = provenance_of(init, OURS)
    assert known.saw == saw
    assert words in known.sentence
    assert known.is_doubtful == (saw in ("not_checked", "unknown"))


def test_where_nobody_is_kept_out_equal_digests_prove_nothing():
    """Of a transductive study, or of one without a task, the digest is that of no images: it would fit any other such study."""
    known = provenance_of(dataclasses.replace(record(NOBODY)), NOBODY)
    assert known.saw == "not_checked"
    assert "keeps no images from pretraining" in known.sentence
