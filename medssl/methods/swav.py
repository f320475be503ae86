"""SwAV: Caron et al., Contrasting Cluster Assignments, NeurIPS 2020 (2006.09882)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from medssl.augment.ranges import CropRange
from medssl.errors import StudyError
from medssl.methods.base import Batch, Method, Output, ParameterGroup, View, ViewSpec, group
from medssl.methods.queue import Queue
from medssl.methods.settings import MethodSettings
from medssl.models.encoder import Encoder
from medssl.models.heads import mlp
from medssl.training.collectives import gather_rows, own_rows, world_size
from medssl.training.recipe import Recipe


class SwAVSettings(MethodSettings):
    """The method's own settings; the defaults are the paper's with two full views."""

    name: Literal["swav"] = "swav"
    projector_hidden: int = Field(default=2048, ge=2, description="Hidden width of the projector")
    projector_dim: int = Field(default=128, ge=2, description="d, the width of z and of the prototypes")
    prototypes: int = Field(
        default=3000, ge=2, description="K; for small archives fewer: each batch, with its queue, is spread evenly over them"
    )
    temperature: float = Field(default=0.1, gt=0, description="tau of the predictions (equation 2)")
    epsilon: float = Field(
        default=0.05,
        gt=0,
        description="Smoothness of the assignments (equation 3). A loss that stays at ln K (8.006 for 3000) says that all images "
        "are assigned alike: try 0.03",
    )
    sinkhorn_iterations: int = Field(default=3, ge=1, description="Rounds of Sinkhorn-Knopp for the assignments")
    freeze_steps: int = Field(
        default=313,
        ge=0,
        description="First steps in which the prototypes do not learn: 313 at batch 4096, 5005 (one epoch) at 256 in the "
        "released scripts",
    )
    queue_size: int = Field(
        default=0,
        ge=0,
        description="Former projections of each full view that are assigned with the batch, which a batch smaller than K needs: "
        "3840 at batch 256. Well below the number of images; 0: none",
    )
    queue_from: float = Field(
        default=0.075, ge=0, lt=1, description="Share of the training after which the queue fills; epoch 15 of 200 in the script"
    )
    small_views: int = Field(
        default=0, ge=0, le=16, description="Small views of each image, multi-crop (section 3.2); 6 in the paper's best runs"
    )
    small_size: float = Field(default=0.43, gt=0, le=1, description="Side of a small view, share of the input size: 96 of 224 px")
    small_crop_scale: CropRange = Field(default=[0.05, 0.14], description="Share of the image's area that a small view shows")
    crop_scale: CropRange = Field(default=[0.14, 1.0], description="The same of the full views, where there are small ones")


class SwAV(Method):
    """The cluster of one view, among prototypes that all images share evenly, is predicted from the image's other views.

    The rate is that of the released script for batches of 256, which has no warm-up; its scripts for 4096 take 4.8, half of
    what linear scaling gives, with ten epochs of warm-up. A loss that stays at ln K is a collapse: see `epsilon`.
    """

    recipe = Recipe(name="lars", base_lr=0.6, weight_decay=1e-6, final_lr=0.001)

    def __init__(self, settings: SwAVSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        self.projector = mlp([encoder.feature_dim, settings.projector_hidden, settings.projector_dim])
        self.prototypes = nn.Linear(settings.projector_dim, settings.prototypes, bias=False)
        queues = 2 if settings.queue_size else 0
        self.queues = nn.ModuleList(Queue(settings.queue_size, settings.projector_dim) for _ in range(queues))
        self._queue_runs = False  # a function of the step, set before each
        self._normalise_prototypes()

    def view_spec(self) -> ViewSpec:
        """Two full views, then the small ones."""
        if not self.settings.small_views:
            return ViewSpec((View(), View()))
        full = View(changes=_crop(self.settings.crop_scale))
        small = View(size=self.settings.small_size, changes=_crop(self.settings.small_crop_scale))
        return ViewSpec((full, full, *[small] * self.settings.small_views))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Weight decay and LARS's adaptation on all parameters: the released code excludes none."""
        return [
            *group("encoder", [self.encoder], lr_scale=self.settings.encoder_lr_scale),
            *group("projector", [self.projector]),
            *group("prototypes", [self.prototypes]),
        ]

    def cautions(self, images: int, batch: int) -> list[str]:
        """Assignments spread a batch and its queue evenly over the prototypes, so there must be enough of them."""
        found, queue, prototypes = [], self.settings.queue_size, self.settings.prototypes
        if queue >= images:
            found.append(
                f"queue_size is {queue:,} and there are {images:,} images: images meet themselves in it; make it smaller"
            )
        if queue + batch < prototypes:
            found.append(
                f"{prototypes:,} prototypes share {queue + batch:,} projections (batch and queue), fewer than one each; lower "
                "prototypes or raise queue_size"
            )
        return found

    def before_step(self, step: int, total: int) -> None:
        """Prototypes have unit length at each step (section 3.1)."""
        self._normalise_prototypes()
        self._queue_runs = step >= self.settings.queue_from * total

    def after_backward(self, step: int, total: int) -> None:
        """Prototypes do not learn in the first `freeze_steps`: without a gradient the optimiser passes them over."""
        if step < self.settings.freeze_steps:
            self.prototypes.weight.grad = None

    @torch.no_grad()
    def _normalise_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def forward(self, batch: Batch) -> Output:
        """The swapped prediction (equation 1), also from small views (section 3.2). z and features are those of the full views.

        Views of one size pass the network together, and all views the projector, so BN sees them together, as in the released
        code. The logs say how near the loss is to ln K, and the assignments' entropy likewise; 1 is a collapse.

        Raises:
            ValueError: another number of views than `view_spec()`.
            StudyError: the queue is smaller than the batch.
        """
        views, rows = batch.views, len(batch.views[0])
        if len(views) != 2 + self.settings.small_views:
            raise ValueError(f"expected {2 + self.settings.small_views} views, got {len(views)}")
        features = [self.encoder(torch.cat(same)) for same in (views[:2], views[2:]) if same]
        z = self.projector(torch.cat(features))
        with torch.autocast(z.device.type, enabled=False):
            unit = F.normalize(z.float(), dim=1).view(len(views), rows, -1)
            scores = unit @ self.prototypes.weight.T
            assignments = self._assignments(unit[:2].detach(), scores[:2].detach())
            loss = swapped_loss(scores, assignments, self.settings.temperature)
            uniform = math.log(self.settings.prototypes)
            logs = {
                "loss_of_ln_k": loss.detach() / uniform,
                "assignment_entropy": torch.special.entr(assignments).sum(dim=-1).mean() / uniform,
            }
        z, features = (x[: 2 * rows].detach().float().view(2, rows, -1) for x in (z, features[0]))
        return Output(loss, z, features, logs=logs)

    @torch.no_grad()
    def _assignments(self, unit: Tensor, scores: Tensor) -> Tensor:
        """Those (2, n, K) of this rank's full views: (2, n, d) and their scores (2, n, K), balanced over the rows of all ranks.

        Projections are exchanged and each rank balances them all: they are much narrower than their scores, and queues need them too.
        """
        own = own_rows(unit.shape[1])
        if world_size() > 1:
            unit = gather_rows(unit.transpose(0, 1)).transpose(0, 1)
            scores = unit @ self.prototypes.weight.T
        return torch.stack([self._assign(view, unit[view], scores[view])[own] for view in range(2)])

    def _assign(self, view: int, unit: Tensor, scores: Tensor) -> Tensor:
        """The assignments (N, K) of one full view on all ranks, balanced together with the queue once that is full."""
        if self.queues and self._queue_runs:
            queue = self.queues[view]
            if len(unit) > len(queue.rows):
                raise StudyError(
                    f"pretrain.method.queue_size: is {len(queue.rows)}, below the {len(unit)} images of a pass; "
                    "allowed: 0, or at least that"
                )
            if queue.full:
                scores = torch.cat([queue.rows @ self.prototypes.weight.T, scores])
            queue.push(unit)
        return sinkhorn(scores, self.settings.epsilon, self.settings.sinkhorn_iterations)[-len(unit) :]


def _crop(scale: list[float]) -> dict[str, dict]:
    return {"geometry": {"crop_scale": scale}}


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Sinkhorn-Knopp: assignments near exp(scores / epsilon) in which every prototype has the same share (equations 3 to 5).

    Worked on as logarithms, so that a small epsilon underflows to zero for single entries only, never for a whole prototype.

    Args:
        scores: (N, K).
        epsilon: above 0; the smaller, the nearer to one prototype for each row.
        iterations: at least 1; each normalises prototypes, then rows.

    Returns:
        (N, K) float32: rows sum to 1, columns to about N / K, the nearer the more iterations.
    """
    q = scores.float() / epsilon
    for _ in range(iterations):
        q = q - q.logsumexp(dim=0, keepdim=True)
        q = q - q.logsumexp(dim=1, keepdim=True)
    return q.exp()


def swapped_loss(scores: Tensor, assignments: Tensor, temperature: float) -> Tensor:
    """Cross entropy between the assignments of each full view and the softmax of the scores of every other view.

    Args:
        scores: (V, N, K) float32, of all views; the first A are those assigned.
        assignments: (A, N, K) float32, rows sum to 1.

    Returns:
        Scalar >= 0: equation 2, averaged over the A (V - 1) pairs of views and over rows, as in the released code.
    """
    logs = F.log_softmax(scores / temperature, dim=-1)
    pairs = -torch.einsum("ank,vnk->av", assignments, logs) / scores.shape[1]
    own = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(own, 0).sum() / (~own).sum()
