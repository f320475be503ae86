"""Synthetic DICOM files with known pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian


@pytest.fixture
def write_dicom(tmp_path: Path):
    """write(pixels, name="image.dcm", syntax=..., **elements) -> folder: one file; an element of None is left out."""

    def write(pixels: np.ndarray, name: str = "image.dcm", syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Path:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ComputedRadiographyImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "2.25.1"
        bits = 8 * pixels.dtype.itemsize
        defaults: dict[str, Any] = {
            "Modality": "CR",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": bits,
            "BitsStored": bits,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
            "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
        }
        with warnings.catch_warnings():  # pydicom's, of values that are wrong on purpose
            warnings.simplefilter("ignore")
            for keyword, value in {**defaults, **elements}.items():
                if value is not None:
                    setattr(dataset, keyword, value)
        if "HighBit" not in dataset and "BitsStored" in dataset:
            dataset.HighBit = dataset.BitsStored - 1
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path

    return write
