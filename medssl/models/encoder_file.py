"""The encoder as files: `encoder.safetensors` and `encoder.json`, which says all that is needed to use and to judge it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
from pydantic import Field
from safetensors import SafetensorError

from medssl.errors import CheckpointError, StudyError
from medssl.files import replacing, sha256_of_file, write_json
from medssl.models.encoder import Encoder, build_encoder
from medssl.strict import StrictModel, check

FORMAT_VERSION = 1
WEIGHTS_NAME = "encoder.safetensors"
CARD_NAME = "encoder.json"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]


class CardNormalization(StrictModel):
    """Mean and standard deviation of the three channels, for pixels in [0, 1]; also buffers of the weights file."""

    mean: Channels
    std: Channels


class CardPreprocessing(StrictModel):
    """What was done to the pixels before they reached the encoder."""

    store_size: int = Field(ge=1, description="Side of the pixel store's square, px")
    window: str = Field(description="Name of the rule that chose each image's window")
    channels: Literal["grey", "rgb"] = Field(default="grey", description="Whether images were read as grey or in colour")
    file_window: int | str = Field(
        default=1, description="Which of the windows in a DICOM file was taken: read.window of the cards"
    )
    steps: list[str] = Field(description="The steps from file to [0, 1], in order, for people")


class CardInit(StrictModel):
    """Where the weights started."""

    source: str = Field(description="random, imagenet: <file>, imagenet_statistics: <file>, encoder: <name> or file: <name>")
    sha256: Sha256 | None = Field(description="Of the weights file; null: random")
    saw: Literal["nothing", "imagenet", "proven", "not_checked", "unknown"] | None = Field(
        default=None,
        description="Whether these weights may have seen the patients kept out; proven: they have not; null: not said",
    )


class CardMethod(StrictModel):
    """How the weights were trained."""

    name: str
    settings: dict[str, Any]


class EncoderCard(StrictModel):
    """The content of encoder.json."""

    format_version: Literal[1] = FORMAT_VERSION
    medssl_version: str
    backbone: str
    stem: Literal["standard", "small"]
    group_norm: Literal["keep", "to_batch_norm"] = Field(default="keep", description="Whether it was made batch normalisation")
    input_size: int = Field(ge=1, description="Side of the square input, px")
    feature_dim: int = Field(ge=1)
    normalization: CardNormalization
    preprocessing: CardPreprocessing
    batch_norm: str = Field(description="The study's BatchNorm policy")
    init: CardInit
    method: CardMethod | None = Field(description="null: not pretrained by medssl")
    epochs: int | None = Field(default=None, ge=0)
    samples_seen: int | None = Field(default=None, ge=0)
    seed: int = Field(description="Of this pretraining run: the study's, or for a further run of the arm one derived from it")
    run: int = Field(default=0, ge=0, description="Which pretraining run of its arm")
    data_digest: str | None = Field(default=None, description="Hash of the images trained on; null: none")
    excluded_digest: str | None = Field(default=None, description="Hash of the patients and images kept out; null: none")
    metrics: dict[str, float | None] = Field(default_factory=dict)
    synthetic: bool = Field(description="Trained on generated images: no use for patients")
    weights_sha256: Sha256 | None = Field(default=None, description="Of encoder.safetensors; filled in by save_encoder")


def save_encoder(folder: Path, encoder: Encoder, card: EncoderCard) -> EncoderCard:
    """Write encoder.safetensors and, last, encoder.json with its SHA-256, each atomically; returns the card as written.

    A run killed between the two leaves a card whose hash does not fit, which `load_encoder_folder` refuses.

    Raises:
        ValueError: the card describes another network than `encoder`.
        StoreError: the folder cannot be written.
    """
    _check_card(encoder, card)
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    with replacing(folder / WEIGHTS_NAME) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
        digest = sha256_of_file(temporary)
    card = card.model_copy(update={"weights_sha256": digest})
    write_json(folder / CARD_NAME, card.model_dump(mode="json"))
    return card


def read_card(folder: Path) -> EncoderCard:
    """The card of an encoder's folder, without its weights.

    Raises:
        CheckpointError: there is none, it is of an unknown format version, or a key is missing, unknown or wrong.
    """
    path = Path(folder) / CARD_NAME
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such encoder; name the folder that holds {CARD_NAME}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is not readable JSON; export the encoder again") from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format_version is {version!r}, this medssl reads {FORMAT_VERSION}; use another medssl")
    return check(EncoderCard, value, str(path), CheckpointError)


def load_encoder_folder(folder: Path) -> tuple[Encoder, EncoderCard]:
    """The encoder of a folder, on the CPU and in eval mode, with its card.

    Raises:
        CheckpointError: a file is missing, the weights are not those that the card names, or they do not fit the network.
    """
    card = read_card(folder)
    path = Path(folder) / WEIGHTS_NAME
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; copy it beside {CARD_NAME}")
    if (digest := sha256_of_file(path)) != card.weights_sha256:
        raise CheckpointError(
            f"{path}: its sha256 begins with {digest[:8]}, {CARD_NAME} says {(card.weights_sha256 or 'nothing')[:8]}; "
            "the two do not belong together, copy or export both again"
        )
    try:
        encoder = build_encoder(
            card.backbone, card.stem, card.group_norm, mean=card.normalization.mean, std=card.normalization.std
        )
        tensors = safetensors.torch.load_file(path)
    except StudyError as error:
        raise CheckpointError(f"{Path(folder) / CARD_NAME}: {error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is not a safetensors file ({error}); export the encoder again") from error
    _load_strictly(encoder, tensors, path)
    try:
        _check_card(encoder, card)
    except ValueError as error:
        raise CheckpointError(f"{Path(folder) / CARD_NAME}: {error}; export the encoder again") from error
    return encoder.eval(), card


def _load_strictly(encoder: Encoder, tensors: dict, path: Path) -> None:
    expected = encoder.state_dict()
    for wrong, names in (("lacks", expected.keys() - tensors.keys()), ("also holds", tensors.keys() - expected.keys())):
        if names:
            raise CheckpointError(f"{path}: {wrong} {len(names)} tensors, first {min(names)}; it is of another network")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}; it is of another network"
            )
    encoder.load_state_dict(tensors)


def _check_card(encoder: Encoder, card: EncoderCard) -> None:
    backbone = encoder.backbone
    pairs = {
        "backbone": (card.backbone, backbone.name),
        "stem": (card.stem, backbone.stem),
        "group_norm": (card.group_norm, backbone.group_norm),
        "feature_dim": (card.feature_dim, encoder.feature_dim),
    }
    for key, (said, true) in pairs.items():
        if said != true:
            raise ValueError(f"{key}: the card says {said!r}, the encoder has {true!r}")
    for key in ("mean", "std"):
        said, true = getattr(card.normalization, key), getattr(encoder, key).flatten().tolist()
        if any(abs(a - b) > 1e-6 for a, b in zip(said, true, strict=True)):
            raise ValueError(f"normalization.{key}: the card says {said}, the encoder has {true}")
