"""SimSiam as lightly's own example writes it, with a DataLoader over image files; prints samples a second, first epoch left out.

    python benchmarks/lightly_simsiam.py FOLDER NETWORK SIZE BATCH WORKERS EPOCHS

The same network, heads, batch, precision and memory layout as medssl's run beside it in benchmarks/step.py.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from lightly.transforms import SimSiamTransform
from torch import Tensor, nn


class SimSiam(nn.Module):
    """Backbone, projector and predictor of the paper's sizes."""

    def __init__(self, network: str) -> None:
        super().__init__()
        backbone = getattr(torchvision.models, network)(weights=None)
        dim = backbone.fc.in_features
        backbone.fc = nn.Identity()
        self.backbone = backbone
        self.projection_head = SimSiamProjectionHead(dim, 2048, 2048)
        self.prediction_head = SimSiamPredictionHead(2048, 512, 2048)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Projection, detached, and prediction."""
        z = self.projection_head(self.backbone(x).flatten(start_dim=1))
        return z.detach(), self.prediction_head(z)


def main() -> None:
    """Train and print."""
    folder, network, size, batch, workers, epochs = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    torch.backends.cudnn.benchmark = True
    model = SimSiam(network).to(device, memory_format=layout)
    loader = torch.utils.data.DataLoader(
        LightlyDataset(folder, transform=SimSiamTransform(input_size=size)),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    criterion = NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05 * batch / 256, momentum=0.9, weight_decay=1e-4)
    model.train()
    began = 0.0
    for epoch in range(epochs):
        if epoch == 1:
            began = time.perf_counter()
        for views in loader:
            x0, x1 = (view.to(device, non_blocking=True, memory_format=layout) for view in views[0])
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                (z0, p0), (z1, p1) = model(x0), model(x1)
                loss = 0.5 * (criterion(z0, p1) + criterion(z1, p0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()
    seconds = time.perf_counter() - began
    print(json.dumps({"rate": (epochs - 1) * len(loader) * batch / seconds}))


if __name__ == "__main__":
    main()
