"""The registry and the closed list of reasons."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import medssl.data
from medssl.data.formats import READERS, REASONS, Item, Reject


def test_readers_are_registered_under_their_names():
    assert {name: reader.name for name, reader in READERS.items()} == {name: name for name in READERS}
    assert set(READERS) == {"dicom", "nifti", "raster", "slide", "medmnist"}


def test_a_reason_that_is_not_listed_is_refused():
    with pytest.raises(ValueError, match="bad_luck"):
        Reject(Item("x"), "bad_luck")


def test_every_reason_in_the_source_is_explained_and_every_explanation_is_used():
    folder = Path(medssl.data.__file__).parent
    source = "\n".join(path.read_text() for path in folder.rglob("*.py") if path.name != "items.py")
    written = set(re.findall(r'"([a-z_]+)"', source))
    assert set(REASONS) <= written
    given = set(re.findall(r'RefusedError\(\s*"([a-z_]+)"', source))
    assert given <= set(REASONS)
    assert all(sentence.endswith(".") for sentence in REASONS.values())


def test_the_registry_imports_no_decoder():
    code = (
        "import sys, medssl.data.formats;"
        "print([name for name in ('pydicom', 'gdcm', 'PIL', 'numpy', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
