"""DICOM files to measure on, made of noise-like anatomy: a CT slice of 512 x 512 in every syntax, and very many small files."""

from __future__ import annotations

import shutil
from pathlib import Path

import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SYNTAXES = {
    "uncompressed": None,
    "RLE": gdcm.TransferSyntax.RLELossless,
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}


def slice_like(size: int, seed: int) -> np.ndarray:
    """(size, size) int16: smooth structure with noise, 12 bit, about as compressible as CT."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = (x**2 + (1.3 * y) ** 2 < 0.8).astype(float)
    waves = sum(np.sin(rng.uniform(2, 12) * x + rng.uniform(2, 12) * y + rng.uniform(0, 6)) for _ in range(5))
    return (body * (1000 + 80 * waves + rng.normal(0, 12, (size, size)))).clip(0, 4095).astype(np.int16)


def dataset(pixels: np.ndarray, patient: int, number: int) -> Dataset:
    """A CT slice with as many elements as scanners write."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.PatientID, one.PatientName = f"P{patient}", "Made^Up"
    one.StudyInstanceUID, one.SeriesInstanceUID = f"2.25.{patient + 1}", f"2.25.{patient + 1}.1"
    one.Modality, one.Manufacturer, one.StudyDate = "CT", "SIEMENS", "20200101"
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    for keyword in ("KVP", "SliceThickness", "DataCollectionDiameter", "ReconstructionDiameter", "GantryDetectorTilt"):
        setattr(one, keyword, "1.0")
    for keyword in ("InstitutionName", "StationName", "SeriesDescription", "ProtocolName", "ConvolutionKernel"):
        setattr(one, keyword, "SOMETHING")
    one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    one.Rows, one.Columns = pixels.shape
    one.PixelSpacing = [0.7, 0.7]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.WindowCenter, one.WindowWidth, one.RescaleIntercept, one.RescaleSlope = 40, 400, -1024, 1
    one.PixelData = pixels.astype("<u2").tobytes()
    one["PixelData"].VR = "OW"
    return one


def write_syntax(folder: Path, name: str, count: int, size: int = 512) -> list[Path]:
    """`count` different slices in one syntax; they are kept for the next run."""
    folder = folder / name.replace(" ", "_")
    paths = [folder / f"{number:05}.dcm" for number in range(count)]
    if paths[-1].exists():
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        plain = path.with_suffix(".plain")
        dataset(slice_like(size, number), number // 20, number).save_as(plain, enforce_file_format=True)
        if SYNTAXES[name] is None:
            plain.rename(path)
            continue
        _recode(plain, path, SYNTAXES[name])
        plain.unlink()
    return paths


def write_many(folder: Path, count: int, size: int = 32) -> None:
    """`count` small files, 100 a folder, 4 a patient."""
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(count):
        path = folder / "files" / f"{number // 100:05}" / f"{number:07}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 4096, (size, size)).astype(np.int16)
        dataset(pixels, number // 4, number).save_as(path, enforce_file_format=True)
    (folder / "complete").touch()


def _recode(source: Path, target: Path, syntax: int) -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    if not reader.Read():
        raise RuntimeError("gdcm cannot read what pydicom wrote")
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise RuntimeError(f"gdcm cannot encode {gdcm.TransferSyntax.GetTSString(syntax)}")
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise RuntimeError("gdcm cannot write")
