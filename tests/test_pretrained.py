"""From a user's file to what the encoder sees: as in training, VOI LUT and colour included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from medssl.errors import DataError
from medssl.models.encoder_file import CardPreprocessing, EncoderCard
from medssl.pretrained import PretrainedEncoder

SIZE = 32


def encoder(**preprocessing) -> PretrainedEncoder:
    settings = {"store_size": SIZE, "window": "auto", "steps": []} | preprocessing
    card = EncoderCard.model_construct(input_size=SIZE, preprocessing=CardPreprocessing(**settings))
    return PretrainedEncoder(torch.nn.Identity(), card)


@pytest.fixture
def with_lut(tmp_path):
    """A DICOM file whose VOI LUT is anything but a window, and what pydicom shows of it, in [0, 1]."""
    table = (65535 * (np.sin(np.arange(4096) / 400) + 1) / 2).astype(np.uint16)
    item, one = Dataset(), Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], table.tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = ComputedRadiographyImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = "2.25.1"
    pixels = np.random.default_rng(0).integers(0, 4096, (SIZE, SIZE)).astype(np.uint16)
    one.Modality, one.Rows, one.Columns = "CR", SIZE, SIZE
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.VOILUTSequence = [item]
    one.WindowCenter, one.WindowWidth = 1000, 10
    one.PixelData = pixels.tobytes()
    one["PixelData"].VR = "OW"
    one.save_as(tmp_path / "lut.dcm", enforce_file_format=True)
    return tmp_path / "lut.dcm", apply_voi_lut(pixels, one, prefer_lut=True) / 65535


def test_a_voi_lut_is_followed_where_the_cards_ask_for_it(with_lut):
    path, shown = with_lut
    found = encoder(file_window="lut").prepare(path)
    np.testing.assert_allclose(found[0, 0].numpy(), shown, atol=1e-4)
    windowed = encoder().prepare(path)
    assert windowed.unique().numel() < 15  # the file's window is 10 wide
    assert (found - windowed).abs().max() > 0.5


def test_colour_stays_colour_where_the_encoder_learnt_from_it(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "tile.png")
    found = encoder(channels="rgb").prepare(tmp_path / "tile.png")
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), pixels / 255, atol=1e-6)
    with pytest.raises(DataError, match=r"tile\.png: cannot be read: colour"):
        encoder().prepare(tmp_path / "tile.png")


def test_what_is_no_image_is_one_line(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        encoder().prepare(tmp_path / "none.dcm")
    (tmp_path / "page.dcm").write_text("<html>")
    with pytest.raises(DataError, match=r"page\.dcm: cannot be read: not_dicom"):
        encoder().prepare(tmp_path / "page.dcm")


def test_a_ct_window_by_name_is_in_hounsfield_units():
    """-1350 to 150 HU is lung, whatever the percentiles of the image are; only int16 arrays are taken for HU."""
    pixels = np.full((SIZE, SIZE), -600, np.int16)
    pixels[0, :4] = [-1350, 150, 3000, -3000]
    pixels[-8:] = 0
    shown = encoder(window="lung").prepare(pixels)[0, 0]
    assert float(shown[SIZE // 2, SIZE // 2]) == pytest.approx(0.5, abs=1e-4)
    assert shown[0, :4].tolist() == pytest.approx([0, 1, 1, 0], abs=1e-4)
    unsigned = encoder(window="lung").prepare((pixels.astype(np.int32) + 5000).astype(np.uint16))[0, 0]
    assert float(unsigned[SIZE // 2, SIZE // 2]) == pytest.approx(0, abs=0.01), "by percentiles, -600 is the darkest"
