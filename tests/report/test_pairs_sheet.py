"""The sheet of related images: the right pictures in the right places, and what differs in words."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medssl.data.batches import PixelBatch
from medssl.data.pair_kinds import SamePatient
from medssl.data.pairs import related_images
from medssl.data.pairs.related import COLUMNS
from medssl.report.pairs_sheet import difference, pairs_sheet

SIDE = 32


def flat_images(levels: np.ndarray) -> PixelBatch:
    """Images of one grey level each, 0 to 255."""
    n = len(levels)
    pixels = torch.from_numpy(levels.astype(np.uint8))[:, None, None, None].expand(n, 1, SIDE, SIDE).contiguous()
    return PixelBatch(
        pixels=pixels,
        slope=torch.ones(n),
        intercept=torch.zeros(n),
        center=torch.full((n,), 127.5),
        width=torch.full((n,), 255.0),
        function=torch.ones(n, dtype=torch.int64),
        invert=torch.zeros(n, dtype=torch.bool),
        box=torch.tensor([[0.0, 0.0, SIDE, SIDE]]).expand(n, 4),
        row=torch.arange(n),
        spacing=torch.full((n, 2), float("nan")),
    )


def test_each_row_is_an_image_and_its_drawn_partners():
    levels = np.array([40, 90, 140, 190])
    manifest = pd.DataFrame({"source": "a", "patient": ["p", "p", "p", "q"]}).reindex(columns=list(COLUMNS))
    related = related_images(manifest, {"a": [SamePatient(kind="same_patient")]})
    chosen = np.array([1, 3])
    drawn = np.stack([related.partners(0, epoch).numpy()[chosen] for epoch in range(3)])
    png = pairs_sheet(lambda at: flat_images(levels[at]), manifest, related, chosen, drawn, SIDE, tile=SIDE)
    sheet = np.asarray(Image.open(io.BytesIO(png)))[..., 0]
    step_x, step_y = SIDE + 8, SIDE + 8 + 2 * 15
    centres = [[int(sheet[8 + 16 + step_y * row, 8 + 16 + step_x * column]) for column in range(4)] for row in range(2)]
    assert centres[0] == [90, *levels[drawn[:, 0]].tolist()]
    assert set(centres[0][1:]) <= {40, 140}
    assert centres[1][0] == 190
    assert set(centres[1][1:]) == {235}, "an image without a mate shows no other image"


@pytest.mark.parametrize(
    ("kind", "one", "other", "words"),
    [
        ("adjacent_tile", {"tile_row": 3, "tile_column": 5}, {"tile_row": 3, "tile_column": 6}, "tile (0,+1)"),
        ("adjacent_slice", {"slice": 4, "spacing_slice": 2.5}, {"slice": 2, "spacing_slice": 2.5}, "slice -2, -5.0 mm"),
        ("adjacent_slice", {"slice": 4}, {"slice": 6}, "slice +2"),
        (
            "same_series",
            {"position_x": 0, "position_y": 0, "position_z": 1},
            {"position_x": 0, "position_y": 3, "position_z": 5},
            "5.0 mm away",
        ),
        ("same_series", {}, {}, "of the series"),
        ("same_study_other_view", {"view": "PA"}, {"view": "LL"}, "view PA->LL"),
        ("same_study_other_view", {"view": "CC", "laterality": "L"}, {"view": "CC", "laterality": "R"}, "view CC L->CC R"),
        ("same_patient_other_date", {"days_since_first": 0}, {"days_since_first": 34}, "+34 days"),
        (
            "same_patient_other_date",
            {"days_since_first": 34, "view": "PA"},
            {"days_since_first": 0, "view": "AP"},
            "-34 days, view PA->AP",
        ),
        ("same_patient", {}, {}, "of the patient"),
    ],
)
def test_what_differs(kind, one, other, words):
    rows = pd.DataFrame([one, other]).reindex(columns=list(COLUMNS))
    assert difference(kind, rows.iloc[0], rows.iloc[1]) == words
