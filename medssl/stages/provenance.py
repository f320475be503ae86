"""Whether the weights that an arm starts from may have seen the patients that this study holds out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medssl.files import digest_of
from medssl.models.encoder_file import EncoderCard
from medssl.models.weights import IMAGENET, RANDOM, STATISTICS, InitRecord

NOBODY = digest_of([])  # the digest of what is kept out where nothing is
Saw = Literal["nothing", "imagenet", "proven", "not_checked", "unknown"]


@dataclass(frozen=True)
class Provenance:
    """What is known of it.

    Attributes:
        saw: `nothing` (random weights), `imagenet` (photographs), `proven` (the held-out images were kept from it),
            `not_checked` (it may have seen them), `unknown` (a file of others).
        sentence: the same for people.
    """

    saw: Saw
    sentence: str

    @property
    def is_doubtful(self) -> bool:
        """Whether results on the test patients may be too good."""
        return self.saw in ("not_checked", "unknown")


def provenance_of(record: InitRecord, excluded_digest: str) -> Provenance:
    """What is known of the weights of `record`.

    Args:
        excluded_digest: of the images that this study keeps from pretraining: those of its validation and test patients and
            every copy. An encoder that medssl pretrained names the digest of what was kept from it; equal digests are a proof,
            different ones prove nothing either way.
    """
    if record.source == RANDOM:
        return Provenance("nothing", "random weights, which have seen nothing")
    if record.source.startswith((f"{IMAGENET}:", f"{STATISTICS}:")):
        return Provenance("imagenet", "the library's ImageNet weights, which have seen photographs and no image of this study")
    if record.card is None or record.card.method is None:
        return Provenance("unknown", "unknown what it was trained on; it may have seen these test patients")
    return _of_card(record.card, excluded_digest)


def _of_card(card: EncoderCard, excluded_digest: str) -> Provenance:
    if excluded_digest == NOBODY:
        return Provenance("not_checked", "this study keeps no images from pretraining, so there is nothing to check it against")
    if card.excluded_digest != excluded_digest:
        return Provenance("not_checked", "its pretraining may have seen these test patients: not checked")
    if _began_clean(card):
        return Provenance("proven", "proven: the same images were kept from its pretraining that this study holds out")
    return Provenance(
        "not_checked",
        f"the images that this study holds out were kept from its pretraining, but that began from {card.init.source}, which may "
        "have seen these test patients: not checked",
    )


def _began_clean(card: EncoderCard) -> bool:
    """Whether what the pretraining itself started from is known not to have seen them: its card was checked against the same digest."""
    if card.init.saw is not None:
        return card.init.saw in ("nothing", "imagenet", "proven")
    return card.init.source == RANDOM or card.init.source.startswith((f"{IMAGENET}:", f"{STATISTICS}:"))
