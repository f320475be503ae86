"""An encoder with a head, and the ways in which its weights are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medssl.augment.evaluate import eval_view
from medssl.data.batches import PixelSource
from medssl.evaluation.linear_probe import LinearHead
from medssl.evaluation.links import logits_of, scores_of
from medssl.models.blocks import freeze_below, parameter_blocks
from medssl.models.encoder import Encoder
from medssl.models.weights import init_stream
from medssl.task import Outputs

PREDICTED_AT_ONCE = 64


class Classifier(nn.Module):
    """An encoder with one linear layer to the logits of a task.

    Attributes:
        label_mean, label_std: buffers; of a regression the logit is the label less the mean, over the deviation.
    """

    def __init__(self, encoder: Encoder, outputs: Outputs, *, seed: int) -> None:
        """The head is drawn from the stream ("init", "classifier") of `seed`."""
        super().__init__()
        self.encoder, self.outputs = encoder, outputs
        with init_stream(seed, "classifier"):
            self.head = nn.Linear(encoder.feature_dim, logits_of(outputs))
        self.register_buffer("label_mean", torch.zeros(1))
        self.register_buffer("label_std", torch.ones(1))
        self._still: list[nn.Module] = []  # layers that never leave eval mode

    def forward(self, images: Tensor) -> Tensor:
        """(N, J) logits of images (N, 1 or 3, H, W) in [0, 1]; see `medssl.evaluation.links`."""
        return self.head(self.encoder(images))

    def train(self, mode: bool = True) -> Classifier:
        """As torch's, but for frozen layers."""
        super().train(mode)
        for layer in self._still:
            layer.eval()
        return self

    def freeze_below(self, last: int) -> None:
        """Train only the `last` blocks of the backbone, and the head.

        Raises:
            StudyError: see `medssl.models.blocks.freeze_below`.
        """
        self._still = freeze_below(self.encoder, last)
        self.train(self.training)

    def standardise(self, labels: np.ndarray) -> None:
        """Take mean and deviation of the known labels (n, T) of a regression; of other tasks nothing."""
        if self.outputs.kind == "regression":
            known = labels[~np.isnan(labels)]
            self.label_mean.fill_(float(known.mean()))
            self.label_std.fill_(float(known.std()) or 1.0)

    def set_head(self, head: LinearHead) -> None:
        """Start from a linear probe; `standardise` comes before it."""
        weight, bias = head.weight.T, head.bias
        if self.outputs.kind == "regression":
            mean, std = float(self.label_mean), float(self.label_std)
            weight, bias = weight / std, (bias - mean) / std
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight))
            self.head.bias.copy_(torch.from_numpy(bias))


def parameter_groups(model: Classifier, *, lr: float, head_lr: float, decay: float | None = None) -> list[dict[str, Any]]:
    """The groups of parameters that are trained. No weight decay on biases and normalisation layers, as is usual with AdamW.

    Args:
        decay: the rate of each block as a share of that of the one above it, the head on top: the highest block has lr x decay (BEiT,
            2106.08254, section 3.2; ELECTRA, 2003.10555, appendix B). None: one rate for the whole encoder.
    """
    parameters = dict(model.encoder.named_parameters())
    parts = [list(parameters)] if decay is None else parameter_blocks(model.encoder)
    groups = []
    for number, names in enumerate(parts):
        scale = 1.0 if decay is None else decay ** (len(parts) - number)
        trained = [parameters[name] for name in names if parameters[name].requires_grad]
        name = "encoder" if decay is None else f"block{number}"
        matrices, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups += [{"name": name, "params": matrices, "lr_scale": scale}] if matrices else []
        groups += [{"name": f"{name}_1d", "params": others, "lr_scale": scale, "weight_decay": False}] if others else []
    return [*groups, {"name": "head", "params": list(model.head.parameters()), "lr_scale": head_lr / lr}]


@torch.no_grad()
def predict(
    model: Classifier, source: PixelSource, *, size: int, device: torch.device, precision: torch.dtype = torch.float32
) -> np.ndarray:
    """(N, K) scores, every image once, in order; the model is in eval mode within."""
    training = model.training
    model.eval()
    out = [np.empty((0, logits_of(model.outputs)))]
    for batch in source.batches(PREDICTED_AT_ONCE):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            logits = model(eval_view(batch.to(device), size))
        out.append(logits.double().cpu().numpy())
    model.train(training)
    logits = np.concatenate(out)
    if model.outputs.kind == "regression":
        logits = logits * model.label_std.double().cpu().numpy() + model.label_mean.double().cpu().numpy()
    return scores_of(logits, model.outputs)
