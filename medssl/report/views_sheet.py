"""A contact sheet of views: each image as it is, beside views of it with what was drawn for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medssl.augment.evaluate import eval_view
from medssl.augment.views import Views
from medssl.augment.window import to_unit_range
from medssl.data.batches import PixelBatch
from medssl.report.contact_sheet import sheet_png
from medssl.seeds import torch_generator


def views_sheet(batch: PixelBatch, policy: Views, size: int, seed: int, views: int, *, tile: int = 184) -> bytes:
    """A PNG with a row for each image of the batch: the image, then `views` views, drawn as for step 0 of a run of this seed.

    Of volumes the middle slices are shown, front above, the patient's right on the left.

    Args:
        size: side of a view, px.
        tile: longer side of each picture, px.
    """
    volumes = policy.dims == 3
    original = to_unit_range(batch) if volumes else eval_view(batch, size)
    pictures: list[np.ndarray] = []
    captions: list[list[str]] = []
    drawn = [policy.sample(len(batch), torch_generator(seed, "views", 0, view)) for view in range(views)]
    made = [policy.apply(batch, parameters, size) for parameters in drawn]
    for i in range(len(batch)):
        pictures.append(_picture(original[i], _middle(batch, i) if volumes else None, tile))
        captions.append(["the image", _extent(batch, i)])
        for parameters, view in zip(drawn, made, strict=True):
            pictures.append(_picture(view[i], view.shape[2] // 2 if volumes else None, tile))
            captions.append(policy.describe(parameters, i))
    return sheet_png(pictures, captions, columns=views + 1, tile=tile)


def _middle(batch: PixelBatch, i: int) -> int:
    return int(batch.box[i, 3]) // 2


def _picture(image: Tensor, slice_index: int | None, tile: int) -> np.ndarray:
    # Voxels run to the right, front and head: turned so that it stands as radiologists hang it.
    shown = image if slice_index is None else torch.flip(image[:, slice_index], (1, 2))
    pixels = shown.cpu().numpy()
    # Small ones are shown larger, their pixels as squares: smoothing would hide what they hold.
    factor = max(1, tile // max(pixels.shape[1:]))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def _extent(batch: PixelBatch, i: int) -> str:
    dims = batch.box.shape[1] // 2
    sides = (batch.box[i, dims:] - batch.box[i, :dims]).tolist()
    text = "x".join(f"{side:.0f}" for side in sides) + " px stored"
    if bool(batch.spacing[i].isfinite().all()):
        text = "x".join(f"{side * mm:.3g}" for side, mm in zip(sides, batch.spacing[i].tolist(), strict=True)) + " mm"
    return text
