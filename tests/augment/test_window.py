from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut, apply_windowing

from medssl.augment.window import to_unit_range, valid_mask
from medssl.data.batches import FUNCTIONS


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
    image = to_unit_range(batch, center_shift=shift, width_factor=factor)
    assert image.flatten().tolist() == pytest.approx([0.4, 0.6, 0.45])


def test_the_batch_is_left_as_it_was(make_batch):
    pixels = torch.rand(2, 1, 4, 4)
    batch = make_batch(pixels.clone(), invert=True, box=[0.0, 0.0, 2.0, 4.0])
    to_unit_range(batch)
    assert torch.equal(batch.pixels, pixels)
