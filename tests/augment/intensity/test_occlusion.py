from __future__ import annotations

import pytest
import torch
from scipy import stats

from medssl.augment.intensity.occlusion import Cutout
from medssl.seeds import torch_generator


@pytest.mark.parametrize(("spatial", "tolerance"), [((100, 100), 0.01), ((40, 40, 40), 0.02)], ids=["2D", "3D"])
def test_the_drawn_share_is_blanked(spatial, tolerance):
    cutout = Cutout(area=[0.1, 0.1])
    out = cutout.apply(torch.ones(100, 1, *spatial), cutout.sample(100, torch_generator(0)))
    share = out.eq(0).flatten(1).float().mean(1)
    torch.testing.assert_close(share, torch.full_like(share, 0.1), atol=tolerance, rtol=0)
    assert set(out.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("spatial", [(64, 48), (24, 24, 24)], ids=["2D", "3D"])
def test_what_is_blanked_is_one_box_in_all_channels_with_the_value_asked_for(spatial):
    cutout = Cutout(area=[0.05, 0.3], value=0.25)
    out = cutout.apply(torch.ones(30, 3, *spatial), cutout.sample(30, torch_generator(1)))
    for view in out:
        blank = view == 0.25
        assert torch.equal(blank[0], blank[1])
        assert torch.equal(blank[0], blank[2])
        at = blank[0].nonzero()
        assert (at.amax(0) - at.amin(0) + 1).prod() == len(at), "not a box"


def test_areas_are_uniform_and_all_places_are_reached():
    cutout = Cutout(area=[0.02, 0.1])
    drawn = cutout.sample(10_000, torch_generator(0))
    assert stats.kstest(drawn["area"].numpy(), "uniform", (0.02, 0.08)).pvalue > 1e-4
    assert stats.kstest(drawn["corner"].flatten().numpy(), "uniform").pvalue > 1e-4
    blanked = cutout.apply(torch.ones(10_000, 1, 16, 16), drawn).eq(0).float().mean(0)
    assert blanked.min() > 0


def test_no_area_blanks_nothing():
    images = torch.rand(3, 1, 8, 8)
    drawn = Cutout(area=[0.0, 0.0]).sample(3, torch_generator(0))
    assert torch.equal(Cutout().apply(images.clone(), drawn), images)
