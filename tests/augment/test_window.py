from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut, apply_windowing
from scipy import stats

from medssl.augment.window import WindowJitter, in_window, show, to_unit_range, valid_mask
from medssl.data.batches import CT_WINDOWS, FUNCTIONS, choose_windows
from medssl.seeds import torch_generator


def ramp(low: int, high: int) -> torch.Tensor:
    return torch.arange(low, high, dtype=torch.float32).view(1, 1, 1, -1)


@pytest.mark.parametrize(("name", "tag"), [("linear", "LINEAR"), ("linear_exact", "LINEAR_EXACT"), ("sigmoid", "SIGMOID")])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (600, 1500), (100.5, 17.25), (2000, 2)])
def test_window_functions_agree_with_pydicom(make_batch, name, tag, center, width):
    stored = ramp(0, 4096)
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 12, 0
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = center, width, tag
    shown = apply_windowing(stored.numpy().squeeze().astype(np.uint16), dataset) / 4095
    ours = to_unit_range(make_batch(stored, center=center, width=width, function=FUNCTIONS[name]))
    np.testing.assert_allclose(ours.squeeze().numpy(), shown, atol=2e-5)


def test_a_voi_lut_agrees_with_pydicom(make_batch):
    """A LUT of 4,096 entries over the values 100 to 4,195, for one of two images; the other has a window."""
    table = (np.arange(4096) ** 2 / 4095**2 * 65535).astype(np.uint16)
    dataset, item = Dataset(), Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 100, 16], table.tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    dataset.VOILUTSequence = [item]
    stored = ramp(0, 5000)
    shown = apply_voi_lut(stored.numpy().squeeze().astype(np.uint16), dataset) / 65535
    batch = make_batch(
        stored.repeat(2, 1, 1, 1), center=100 + 4095 / 2, width=4095.0, function=[FUNCTIONS["lut"], FUNCTIONS["linear_exact"]]
    )
    batch.luts = torch.from_numpy(np.stack([table, np.zeros_like(table)]).astype(np.float32) / 65535)
    image = to_unit_range(batch)
    np.testing.assert_allclose(image[0].squeeze().numpy(), shown, atol=2e-5)
    torch.testing.assert_close(image[1].squeeze(), ((stored.squeeze() - 100) / 4095).clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_pixels_come_as_they_stand_in_the_store(make_batch, dtype):
    stored = torch.arange(200).view(1, 1, 1, -1)
    batch = make_batch(stored.float(), center=100.0, width=200.0)
    expected = to_unit_range(batch)
    batch.pixels = stored.to(dtype)
    assert torch.equal(to_unit_range(batch), expected)


def test_colour_is_windowed_channel_by_channel(make_batch):
    stored = torch.rand(2, 3, 4, 5) * 255
    image = to_unit_range(make_batch(stored, center=127.5, width=255.0))
    torch.testing.assert_close(image, stored / 255, atol=1e-6, rtol=0)


def test_linear_by_hand(make_batch):
    """PS3.3 C.11.2.1.2.1, its own example of a full 8-bit range: centre 128, width 256 is the identity."""
    image = to_unit_range(make_batch(ramp(0, 256), center=128, width=256, function=0))
    torch.testing.assert_close(image, ramp(0, 256) / 255, atol=1e-6, rtol=0)


def test_a_linear_window_of_width_1_is_a_step(make_batch):
    image = to_unit_range(make_batch(torch.tensor([9.0, 9.5, 9.51, 10.0]).view(1, 1, 1, 4), center=10, width=1, function=0))
    assert image.flatten().tolist() == [0, 0, 1, 1]


def test_rescale_comes_before_the_window(make_batch):
    """Hounsfield units from unsigned 16-bit pixels, a lung window."""
    stored = torch.tensor([0.0, 424.0, 1174.0, 60000.0]).view(1, 1, 1, 4)
    image = to_unit_range(make_batch(stored, intercept=-1024.0, center=-600.0, width=1500.0))
    assert image.flatten().tolist() == pytest.approx([(-1024 + 1350) / 1500, 0.5, 1.0, 1.0])


def test_16_bit_pixels_in_a_narrow_window(make_batch):
    stored = ramp(65000, 65010)
    image = to_unit_range(make_batch(stored, center=65005.0, width=10.0))
    torch.testing.assert_close(image.flatten(), torch.arange(10) / 10.0, atol=1e-6, rtol=0)


def test_each_image_has_its_own_window(make_batch):
    pixels = torch.full((3, 1, 2, 2), 30.0)
    image = to_unit_range(
        make_batch(pixels, center=[30.0, 30.0, 40.0], width=[20.0, 20.0, 20.0], function=[1, 2, 1], invert=[False, False, True])
    )
    assert image[:, 0, 0, 0].tolist() == pytest.approx([0.5, 0.5, 1.0])


def test_mixed_sigmoid_and_inversion(make_batch):
    pixels = torch.full((2, 1, 1, 1), 35.0)
    image = to_unit_range(make_batch(pixels, center=30.0, width=20.0, function=2, invert=[False, True]))
    value = 1 / (1 + math.exp(-1))
    assert image.flatten().tolist() == pytest.approx([value, 1 - value])


def test_padding_of_an_inverted_image_is_black(make_batch):
    pixels = torch.zeros(2, 1, 6, 6)
    batch = make_batch(pixels, invert=[True, False], box=[[1.0, 0.0, 5.0, 6.0], [1.0, 0.0, 5.0, 6.0]])
    image = to_unit_range(batch)
    assert image[0, 0, 1:5].eq(1).all()
    assert image[0, 0, [0, 5]].eq(0).all()
    assert image[1].eq(0).all()
    assert valid_mask(batch)[0, 0].sum() == 24


def test_jitter_moves_and_stretches_the_window(make_batch):
    batch = make_batch(torch.full((3, 1, 1, 1), 50.0), center=50.0, width=100.0)
    shift, factor = torch.tensor([0.1, -0.1, 0.1]), torch.tensor([1.0, 1.0, 2.0])
    image = show(in_window(batch), batch, {"center_shift": shift, "width_factor": factor, "anchor": torch.full((3,), 0.5)})
    assert image.flatten().tolist() == pytest.approx([0.4, 0.6, 0.45])


def test_the_batch_is_left_as_it_was(make_batch):
    pixels = torch.rand(2, 1, 4, 4)
    batch = make_batch(pixels.clone(), invert=True, box=[0.0, 0.0, 2.0, 4.0])
    to_unit_range(batch)
    show(in_window(batch), batch, WindowJitter(center_shift=0.1).sample(2, torch_generator(0)))
    assert torch.equal(batch.pixels, pixels)


def test_jitter_of_nothing_is_the_image_as_it_is_shown(make_batch):
    pixels = torch.rand(4, 1, 6, 6) * 100
    batch = make_batch(pixels, center=50.0, width=60.0, function=[0, 1, 2, 1], invert=[False, True, False, False])
    jitter = WindowJitter().sample(4, torch_generator(0))
    torch.testing.assert_close(show(in_window(batch), batch, jitter), to_unit_range(batch), atol=1e-6, rtol=0)


def test_window_coordinates_are_linear_beyond_the_window(make_batch):
    batch = make_batch(ramp(-100, 200), center=50.0, width=100.0)
    torch.testing.assert_close(in_window(batch), ramp(-100, 200) / 100, atol=1e-6, rtol=0)


def test_jitter_follows_its_distributions():
    drawn = WindowJitter(center_shift=0.1, width_factor=[0.5, 2.0]).sample(10_000, torch_generator(0))
    assert set(drawn) == {"center_shift", "width_factor", "anchor"}
    assert stats.kstest(drawn["center_shift"].numpy(), "uniform", (-0.1, 0.2)).pvalue > 1e-4
    assert stats.kstest(drawn["width_factor"].log().numpy(), "uniform", (-math.log(2), 2 * math.log(2))).pvalue > 1e-4


@pytest.mark.parametrize("invert", [False, True])
def test_under_a_gain_black_stays_black(make_batch, invert):
    """Also of an inverted image, whose upper end is black; the factor is that of the distance from black."""
    units = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 1, 4)
    batch = make_batch(1 - units if invert else units, invert=invert)
    jitter = WindowJitter(width_factor=[2.0, 2.0], anchor="low").sample(1, torch_generator(0))
    shown = show(in_window(batch), batch, jitter)
    assert shown.flatten().tolist() == pytest.approx([0, 0.125, 0.25, 0.5], abs=1e-6)


def test_ct_windows_by_name_are_each_as_likely():
    names = ["lung", "bone", "brain"]
    drawn = WindowJitter(ct=names).sample(9_000, torch_generator(0))
    pairs = list(zip(drawn["center"].tolist(), drawn["width"].tolist(), strict=True))
    assert set(pairs) == {CT_WINDOWS[name] for name in names}
    assert stats.chisquare([pairs.count(CT_WINDOWS[name]) for name in names]).pvalue > 1e-4


@pytest.mark.parametrize("function", ["linear", "linear_exact", "sigmoid", "lut"])
def test_a_ct_window_by_name_takes_the_place_of_the_images_own(make_batch, function):
    """-600 and 1500 are the lung's: -1350 is black and 150 is white, whatever window or table the file asks for."""
    stored = torch.tensor([-2000.0, -1350.0, -600.0, -225.0, 150.0, 900.0]).view(1, 1, 1, -1)
    batch = make_batch(stored + 1024, intercept=-1024.0, center=40.0, width=401.0, function=FUNCTIONS[function])
    batch.luts = torch.linspace(1, 0, 16)[None] if function == "lut" else None
    image = show(in_window(batch), batch, WindowJitter(ct=["lung"]).sample(1, torch_generator(0)))
    assert image.flatten().tolist() == pytest.approx([0, 0, 0.5, 0.75, 1, 1], abs=1e-4)
    moved = show(
        in_window(batch), batch, WindowJitter(ct=["lung"]).sample(1, torch_generator(0)) | {"center_shift": torch.tensor([0.1])}
    )
    assert moved.flatten()[2] == pytest.approx(0.4, abs=1e-4)


def test_window_presets_are_for_ct_and_other_images_keep_their_own():
    manifest = pd.DataFrame(
        {
            "modality": ["CT", "CT", "DX", "DX"],
            "window_center": [40.0, np.nan, 2000.0, np.nan],
            "window_width": [400.0, np.nan, 4000.0, np.nan],
            "window_function": ["linear", None, "sigmoid", None],
            "full_low": [-1024.0, -1024.0, 0.0, 0.0],
            "full_high": [3071.0, 3071.0, 4095.0, 255.0],
            "p00_5": [-1000.0, -990.0, 10.0, 3.0],
            "p99_5": [900.0, 800.0, 3900.0, 250.0],
        },
        index=[3, 5, 7, 9],
    )
    for name, (center, width) in CT_WINDOWS.items():
        windows = choose_windows(manifest, name)
        assert windows["center"].tolist() == [center, center, 2000.0, 127.5]
        assert windows["width"].tolist() == [width, width, 4000.0, 255.0]
        assert windows["function"].tolist() == ["linear_exact", "linear_exact", "sigmoid", "linear_exact"]
        assert windows["source"].tolist() == [name, name, "file", "full"]
        assert windows["lut"].isna().all()
    assert CT_WINDOWS["lung"] == (-600.0, 1500.0)
    assert choose_windows(manifest, "auto")["center"].tolist() == [40.0, -95.0, 2000.0, 127.5]


def test_valid_pixels_of_a_volume(make_batch):
    batch = make_batch(torch.ones(1, 1, 4, 6, 8), box=[1.0, 2.0, 0.0, 3.0, 6.0, 5.0])
    mask = valid_mask(batch)
    assert mask.sum() == 2 * 4 * 5
    assert mask[0, 0, 1:3, 2:6, :5].eq(1).all()
    assert torch.equal(to_unit_range(batch), mask)
