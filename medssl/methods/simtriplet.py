"""SimTriplet: Liu et al., Simple Triplet Representation Learning with a Single GPU, MICCAI 2021 (2103.05585).

The paper's neighbours are adjacent tiles of a slide. Which images are related is said by the data card (`positive_pairs`), so the
same loss also takes adjacent slices, other views of a study, or other dates of a patient (MedAug, 2102.10663; MICLe, 2101.05224).
"""

from __future__ import annotations

from typing import Literal

import torch

from medssl.methods.base import Batch, Output, View, ViewSpec
from medssl.methods.simsiam import SimSiam, SimSiamSettings, output


class SimTripletSettings(SimSiamSettings):
    """SimSiam's settings; the loss is symmetric."""

    name: Literal["simtriplet"] = "simtriplet"
    loss: Literal["symmetric"] = "symmetric"


class SimTriplet(SimSiam):
    """SimSiam on two pairs that share a view: with a related image, and with the same image again."""

    pairs = True

    def view_spec(self) -> ViewSpec:
        """x1 and x3 are views of the sample, x2 one of a related image (section 2.2)."""
        return ViewSpec((View(), View(related=True), View()))

    def forward(self, batch: Batch) -> Output:
        """L = SimSiam(x1, x2) + SimSiam(x1, x3), in [-2, 2] (section 2.2); no term joins x2 and x3.

        Three passes, so three statistics of BN. A sample without a related image has a second view of itself as x2.

        Raises:
            ValueError: not three views, or nothing says which samples have a related image.
        """
        if len(batch.views) != 3 or batch.related is None:
            raise ValueError(f"expected three views and which samples are paired, got {len(batch.views)} views")
        passed = [self.embed(view) for view in batch.views]
        inter, intra = self.pair_loss(passed[0], passed[1]), self.pair_loss(passed[0], passed[2])
        fallback = 1 - batch.related.to(torch.float32).mean()
        return output(inter + intra, passed, loss_inter=inter, loss_intra=intra, pair_fallback=fallback)
