"""Readers of raw files: `find` lists what there is to read, `read` gives each image as stored, or a named reason.

A new format is one file with a class that has `name`, `find` and `read` (see `Reader`) and one line in `READERS`.
The modules named here import nothing heavy; the decoders are imported by the first `read`.
"""

from __future__ import annotations

from medssl.data.formats.dicom import DicomReader
from medssl.data.formats.items import REASONS, Header, Image, Item, Reader, RefusedError, Reject, Volume
from medssl.data.formats.medmnist import MedMnistReader
from medssl.data.formats.nifti import NiftiReader
from medssl.data.formats.options import ReadOptions
from medssl.data.formats.raster import RasterReader
from medssl.data.formats.slide import SlideReader

__all__ = ["READERS", "REASONS", "Header", "Image", "Item", "ReadOptions", "Reader", "RefusedError", "Reject", "Volume"]

READERS: dict[str, Reader] = {
    reader.name: reader for reader in (DicomReader(), NiftiReader(), RasterReader(), SlideReader(), MedMnistReader())
}
