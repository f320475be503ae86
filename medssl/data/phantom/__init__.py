"""Built-in data for trying medssl: chest radiographs of phantom patients, drawn by rule, written as real DICOM files."""

from medssl.data.phantom.archive import Summary, generate

__all__ = ["Summary", "generate"]
