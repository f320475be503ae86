"""Synthetic DICOM files with known pixels."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian


@pytest.fixture
def write_dicom(tmp_path: Path):
    """write(pixels, name="image.dcm", syntax=..., **elements) -> folder: one file; an element of None is left out.

    `pixels` are (H, W); with SamplesPerPixel=3 (H, W, 3); with NumberOfFrames (frames, H, W) or (frames, H, W, 3).
    """

    def write(pixels: np.ndarray, name: str = "image.dcm", syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Path:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ComputedRadiographyImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "2.25.1"
        bits = 8 * pixels.dtype.itemsize
        shape = pixels.shape[1:] if pixels.ndim > 2 and elements.get("NumberOfFrames") else pixels.shape
        defaults: dict[str, Any] = {
            "Modality": "CR",
            "Rows": shape[0],
            "Columns": shape[1],
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
            dataset["PixelData"].is_undefined_length = dataset.file_meta.TransferSyntaxUID.is_encapsulated
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path

    return write


@pytest.fixture(scope="session")
def pydicom_files() -> Path:
    """The folder of test files inside the pydicom package."""
    import pydicom

    return Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="session")
def mutate():
    """`fuzzing.mutate`."""
    return runpy.run_path(str(Path(__file__).with_name("fuzzing.py")))["mutate"]


@pytest.fixture
def enhanced(write_dicom) -> Path:
    """A file with everything that can be damaged: frames, functional groups, look-up tables of three kinds, padding."""
    frames = np.random.default_rng(0).integers(0, 200, (3, 12, 10)).astype(np.uint16)
    groups = []
    for number in range(len(frames)):
        position, window, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = ["0", "0", str(number)]
        window.WindowCenter, window.WindowWidth = ["50", "60"], ["100", "20"]
        group.PlanePositionSequence, group.FrameVOILUTSequence = [position], [window]
        groups.append(group)
    modality, voi = Dataset(), Dataset()
    modality.add_new("LUTDescriptor", "US", [256, 0, 16])
    modality.add_new("LUTData", "OW", np.arange(256, dtype="<u2").tobytes())
    voi.add_new("LUTDescriptor", "US", [256, 0, 8])
    voi.add_new("LUTData", "US", list(range(256)))
    root = write_dicom(
        frames,
        name="enhanced.dcm",
        NumberOfFrames="3",
        PerFrameFunctionalGroupsSequence=groups,
        ModalityLUTSequence=[modality],
        VOILUTSequence=[voi],
        PixelPaddingValue=7,
    )
    return root / "enhanced.dcm"
