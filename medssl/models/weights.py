"""Every initialisation of an encoder comes through here: random, ImageNet, or a file. Nothing is ever downloaded."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from medssl.errors import CheckpointError, WeightsError
from medssl.files import sha256_of_file
from medssl.models.backbones import Backbone, build_backbone
from medssl.models.encoder import Encoder
from medssl.models.encoder_file import CARD_NAME, WEIGHTS_NAME, EncoderCard, load_encoder_folder
from medssl.models.imagenet import imagenet_state
from medssl.models.norms import group_norm_to_batch_norm
from medssl.models.state_dict import in_network_names, read_state_dict
from medssl.models.statistics import draw_by_statistics
from medssl.seeds import derive

RANDOM, IMAGENET, STATISTICS = "random", "imagenet", "imagenet_statistics"
_FIRST_NAMES = 3  # of the tensors that an error names


@dataclass(frozen=True)
class InitRecord:
    """What an encoder was initialised with, for encoder.json and the log.

    Attributes:
        source: `random`, `imagenet: <file>`, `imagenet_statistics: <file>`, `encoder: <name>` or `file: <name>`; names alone, no
            path of this machine.
        sha256: of the weights file, hex; None for random.
        matched: number of the backbone's tensors that the source gave, or whose statistics it gave.
        missing: names that the source did not have: always empty, a partial load is an error.
        unexpected: names that the source had besides: those of a classifier head.
        card: encoder.json of an encoder that medssl made; None for all else.
    """

    source: str
    sha256: str | None
    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    card: EncoderCard | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """For receipts and logs: all of it but the card, as JSON values."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "matched": self.matched,
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
        }

    def line(self) -> str:
        """What was loaded: `294 matched, 0 missing, 2 unexpected (the classifier head: a, b), from imagenet: <file>`."""
        if self.source == RANDOM:
            return f"{self.matched} tensors drawn at random"
        head = f" (the classifier head: {', '.join(self.unexpected)})" if self.unexpected else ""
        if self.source.startswith(f"{STATISTICS}:"):
            return (
                f"{self.matched} tensors drawn with the means and variances of theirs, {len(self.missing)} missing, "
                f"{len(self.unexpected)} unexpected{head}, from {self.source}; batch statistics start anew"
            )
        return f"{self.matched} matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected{head}, from {self.source}"


@contextlib.contextmanager
def init_stream(seed: int, *name: str | int) -> Iterator[None]:
    """Layers built on the CPU inside draw their weights from the stream `("init", *name)`; global generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "init", *name))
        yield


def initialise(encoder: Encoder, init: str | Path, *, seed: int, zero_init_residual: bool | None = False) -> InitRecord:
    """Give an encoder's backbone its starting weights.

    Args:
        encoder: changed in place, on whichever device it is; its normalisation stays.
        init: `random`: the library's own initialisation, drawn from the stream ("init"); `imagenet`: see
            `medssl.models.imagenet`; `imagenet_statistics`: see `medssl.models.statistics`; else a path: a folder with
            encoder.json, or a state dict of the backbone as .pth, .pt or .safetensors, also in RadImageNet's layout.
        seed: of the study or of one of an arm's runs; only `random` and `imagenet_statistics` read it.
        zero_init_residual: with `random`, the last BN weight of each residual block starts at 0, so that each block
            starts as the identity (1706.02677, section 5.1), as SimSiam does. timm's ResNets always do. None: where the network
            has such blocks; loaded weights stay as they are.

    Raises:
        WeightsError: no such weights on this machine, other weights than announced, or weights of another network.
    """
    backbone = encoder.backbone
    if init == RANDOM:
        return _random(backbone, seed, zero_init_residual)
    if zero_init_residual:
        raise WeightsError(f"init '{init}': zero_init_residual would wipe loaded weights; allowed with init 'random' only")
    if init == IMAGENET:
        state, path = imagenet_state(backbone)
        return _load(backbone, state, path, f"imagenet: {path.name}")
    if init == STATISTICS:
        return _by_statistics(backbone, seed)
    path = Path(init)
    if path.name in (CARD_NAME, WEIGHTS_NAME) and (path.parent / CARD_NAME).is_file():
        path = path.parent
    if (path / CARD_NAME).is_file():
        return _from_encoder_folder(encoder, path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: is neither a folder with {CARD_NAME} nor a weights file; allowed: {RANDOM}, {IMAGENET}, {STATISTICS} or a path"
        )
    return _from_file(backbone, path)


def sha256_of_init(path: Path) -> str:
    """SHA-256 (hex) that stands for the weights at `path`, a folder with encoder.json or a file; the weights are not loaded.

    Raises:
        WeightsError: there is neither.
    """
    path = Path(path)
    if (path / CARD_NAME).is_file():
        path = path / WEIGHTS_NAME
    if not path.is_file():
        raise WeightsError(f"{path}: is neither a folder with {CARD_NAME} nor a weights file; name one of them as init")
    return sha256_of_file(path)


def _random(backbone: Backbone, seed: int, zero_init_residual: bool | None) -> InitRecord:
    with init_stream(seed):
        # A fresh network, because the libraries initialise in their constructors and in no other place.
        fresh = build_backbone(backbone.name, backbone.stem, backbone.group_norm)
    if zero_init_residual is not False:
        zeroed = _last_gammas(fresh)
        if not zeroed and zero_init_residual:
            raise WeightsError(
                f"{backbone.name}: has no residual block whose last BN zero_init_residual could zero; allowed: false"
            )
        for gamma in zeroed:
            nn.init.zeros_(gamma)
    backbone.load_state_dict(fresh.state_dict())
    return InitRecord(RANDOM, None, len(fresh.state_dict()))


def _by_statistics(backbone: Backbone, seed: int) -> InitRecord:
    state, path = imagenet_state(backbone)
    # In a network of its own on the CPU, so that the draws are the same wherever the encoder is.
    drawn = build_backbone(backbone.name, backbone.stem, backbone.group_norm)
    record = _load(drawn, state, path, f"{STATISTICS}: {path.name}")
    tensors = draw_by_statistics(drawn, seed)
    backbone.load_state_dict(drawn.state_dict())
    return dataclasses.replace(record, matched=tensors)


def _from_file(backbone: Backbone, path: Path) -> InitRecord:
    state, mapped = in_network_names(read_state_dict(path), backbone.network.state_dict())
    layout = ", RadImageNet's names mapped to the network's" if mapped else ""
    return _load(backbone, state, path, f"file: {path.name}{layout}")


def _last_gammas(backbone: Backbone) -> list[nn.Parameter]:
    """The weight of the last BN of each residual block of a ResNet; empty for other networks."""
    gammas = []
    for block in backbone.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            gammas.append(block.bn3.weight)
        elif isinstance(block, torchvision.models.resnet.BasicBlock):
            gammas.append(block.bn2.weight)
        elif callable(getattr(block, "zero_init_last", None)):  # timm's ResNets
            # Blocks that normalise before they convolve have none at their end; timm starts those from zero by itself.
            last = getattr(block, "bn3", None) or getattr(block, "bn2", None)
            if isinstance(getattr(last, "weight", None), nn.Parameter):
                gammas.append(last.weight)
    return gammas


def _from_encoder_folder(encoder: Encoder, folder: Path) -> InitRecord:
    try:
        other, card = load_encoder_folder(folder)
    except CheckpointError as error:
        raise WeightsError(str(error)) from error
    for key in ("backbone", "stem", "group_norm"):
        theirs, ours = getattr(card, key), getattr(encoder.backbone, {"backbone": "name"}.get(key, key))
        if theirs != ours:
            raise WeightsError(f"{folder}: its {key} is {theirs}, the study's is {ours}; all arms need the same")
    for key in ("mean", "std"):
        if not torch.allclose(getattr(other, key), getattr(encoder, key).cpu()):
            raise WeightsError(
                f"{folder}: it was trained with another normalisation ({key}); set encoder.normalization to its own"
            )
    state = other.backbone.state_dict()
    encoder.backbone.load_state_dict(state)
    return InitRecord(f"encoder: {folder.name}", card.weights_sha256, len(state), card=card)


def _load(backbone: Backbone, state: dict[str, Tensor], path: Path, source: str) -> InitRecord:
    expected = backbone.network.state_dict()
    if backbone.group_norm == "to_batch_norm" and not any(name in state for name in _batch_statistics(expected)):
        return _load_converted(backbone, state, path, source)
    head = {name for name in state.keys() - expected.keys() if name.startswith(backbone.head_prefixes)}
    missing = sorted(expected.keys() - state.keys())
    alien = sorted(state.keys() - expected.keys() - head)
    shapes = sorted(name for name in expected.keys() & state.keys() if state[name].shape != expected[name].shape)
    for what, names in (("lacks", missing), ("has besides", alien), ("has in another shape", shapes)):
        if names:
            raise WeightsError(
                f"{path}: does not fit {backbone.name} with a {backbone.stem} stem: of {len(expected)} tensors it {what} "
                f"{len(names)}, first {', '.join(names[:_FIRST_NAMES])}; name the weights of this network"
            )
    backbone.network.load_state_dict({name: state[name] for name in expected})
    return InitRecord(source, sha256_of_file(path), len(expected), (), tuple(sorted(head)))


def _batch_statistics(state: dict[str, Tensor]) -> list[str]:
    return [name for name in state if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]


def _load_converted(backbone: Backbone, state: dict[str, Tensor], path: Path, source: str) -> InitRecord:
    """Weights of the network with group normalisation, for the one in which it was replaced: all but the normalisation's own."""
    original = build_backbone(backbone.name, backbone.stem)
    record = _load(original, state, path, source)
    lost = sum(2 for layer in original.modules() if isinstance(layer, nn.GroupNorm) and layer.affine)
    group_norm_to_batch_norm(original.network)
    backbone.network.load_state_dict(original.network.state_dict())
    return dataclasses.replace(record, source=f"{record.source}, group normalisation replaced", matched=record.matched - lost)
