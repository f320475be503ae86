"""MoCo v2: He et al., Momentum Contrast, CVPR 2020 (1911.05722), with the head and temperature of Chen et al. (2003.04297)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from medssl.errors import StudyError
from medssl.methods.base import Batch, Method, Output, ParameterGroup, View, ViewSpec, group
from medssl.methods.queue import Queue
from medssl.methods.settings import MethodSettings
from medssl.methods.teacher import Teacher
from medssl.models.encoder import Encoder
from medssl.models.heads import mlp
from medssl.training.collectives import from_first_rank, gather_rows, own_rows, world_size
from medssl.training.recipe import Recipe


class MoCoSettings(MethodSettings):
    """The method's own settings; the defaults are those of MoCo v2."""

    name: Literal["moco"] = "moco"
    projector_dim: int = Field(default=128, ge=2, description="d, the width of z; the hidden layer is as wide as the features")
    queue_size: int = Field(
        default=65536,
        ge=1,
        description="K, former keys that are negatives; a multiple of the batch. Choose it well below the number of images: "
        "otherwise the queue holds keys of the very image that is asked about, as negatives",
    )
    momentum: float = Field(default=0.999, ge=0, le=1, description="m of the key encoder (1911.05722, section 3.2)")
    temperature: float = Field(default=0.2, gt=0, description="tau of the softmax (2003.04297, section 3)")
    bn_group: int = Field(
        default=32,
        ge=2,
        description="Most images that share BN's statistics; keys are shuffled between such groups (1911.05722, section 3.3). "
        "With one group of the whole batch the statistics can give the pair away",
    )


class MoCo(Method):
    """A query must find the key of the same image among the keys of former batches, which a slowly moving encoder made."""

    # 2003.04297 keeps the optimiser of 1911.05722, section 4, and takes a cosine schedule without warm-up.
    recipe = Recipe(name="sgd", base_lr=0.03, momentum=0.9, weight_decay=1e-4)
    sync_batch_norm = False  # statistics of small groups are the point: see `in_groups`

    def __init__(self, settings: MoCoSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        width = encoder.feature_dim
        self.projector = mlp([width, width, settings.projector_dim], hidden_bn=False)  # 2003.04297, section 3
        self.teacher = Teacher(encoder, self.projector)
        self.queue = Queue(settings.queue_size, settings.projector_dim, random=True)

    def view_spec(self) -> ViewSpec:
        """Two views: of the query and of the key."""
        return ViewSpec((View(), View()))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Weight decay on all parameters, as in the released code; the key encoder has no gradient and is in no group."""
        return [
            *group("encoder", [self.encoder], lr_scale=self.settings.encoder_lr_scale),
            *group("projector", [self.projector]),
        ]

    def cautions(self, images: int, batch: int) -> list[str]:
        """A queue that holds an image's own former keys asks it to be unlike itself."""
        size = self.settings.queue_size
        if size < images:
            return []
        return [f"queue_size is {size:,} and there are {images:,} images: each image is among its own negatives; make it smaller"]

    def before_step(self, step: int, total: int) -> None:
        """The key encoder moves before the keys are made (algorithm 1), once a step, however many parts the batch has."""
        if step > 0:
            self.teacher.update([self.encoder, self.projector], self.settings.momentum)

    def forward(self, batch: Batch) -> Output:
        """InfoNCE of view 1 as query and view 2 as key (1911.05722, equation 1); not symmetric. z holds queries, then keys.

        Raises:
            ValueError: not two views.
            StudyError: the queue is no multiple of the batch.
        """
        first, second = batch.views
        self._check_queue(len(first))
        features, q = in_groups(self._query, first, self.settings.bn_group)
        key_features, k = in_groups(self.teacher, second, self.settings.bn_group, shuffle=True)
        # A copy of the queue, since pushing changes it before the backward pass has read it.
        loss, top1 = info_nce(q, k, self.queue.rows.clone(), self.settings.temperature)
        self.queue.push(gather_rows(F.normalize(k.float(), dim=1)))
        z, both = (torch.stack(pair).detach().float() for pair in ((q, k), (features, key_features)))
        return Output(loss, z, both, logs={"contrast_top1": top1})

    def _query(self, view: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(view)
        return features, self.projector(features)

    def _check_queue(self, own: int) -> None:
        size, rows = self.settings.queue_size, own * world_size()
        if size % rows:
            raise StudyError(
                f"pretrain.method.queue_size: is {size}, not a multiple of the {rows} images of a pass; "
                f"allowed: {rows}, {2 * rows}, {3 * rows}, ..."
            )


def in_groups(
    network: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, most: int, *, shuffle: bool = False
) -> tuple[Tensor, ...]:
    """`network(x)`, in passes of equal size (or one fewer) of at most `most` rows, so that BN sees one group at a time.

    On several GPUs each has its own statistics, which the paper needs so that a key's batch says nothing of its query's
    (1911.05722, section 3.3, "Shuffling BN"); groups do the same on one device. A group never goes over two ranks.

    Args:
        network: (n, ...) to tensors of n rows; its BN must not be synchronised over ranks.
        x: (N, ...), this rank's.
        shuffle: the rows of all ranks are dealt to the groups of all ranks, in a random order from rank 0's global CPU generator,
            which is undone afterwards.

    Returns:
        What the network gives for x: tensors of N rows.
    """
    groups, own = math.ceil(len(x) / most), own_rows(len(x))
    if not shuffle or groups * world_size() == 1:
        return _passes(network, x, groups)
    # All ranks draw, so that their generators go on alike.
    order = from_first_rank(torch.randperm(len(x) * world_size()).to(x.device))
    passed = _passes(network, gather_rows(x)[order[own]], groups)
    back = order.argsort()[own]
    return tuple(gather_rows(part)[back] for part in passed)


def _passes(network: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, groups: int) -> tuple[Tensor, ...]:
    passed = [network(part) for part in x.tensor_split(groups)]
    return tuple(torch.cat(parts) for parts in zip(*passed, strict=True))


def info_nce(q: Tensor, k: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """-log of the softmax of q.k / tau over the row's own key and all negatives, mean over rows (1911.05722, equation 1).

    Args:
        q, k: (N, d), normalised here; row i of k is the key of row i of q and gets no gradient.
        negatives: (K, d) unit vectors.

    Returns:
        Scalars float32: the loss, >= 0, and the share of rows whose own key is the nearest.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k = F.normalize(q.float(), dim=1), F.normalize(k.detach().float(), dim=1)
        own = (q * k).sum(dim=1, keepdim=True)
        logits = torch.cat([own, q @ negatives.float().T], dim=1) / temperature
        target = torch.zeros(len(q), dtype=torch.int64, device=q.device)
        return F.cross_entropy(logits, target), (logits.detach().argmax(dim=1) == 0).float().mean()
