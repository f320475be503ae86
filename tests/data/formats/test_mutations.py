"""Files with seeded damage: reading gives an image or a named reason, and neither raises nor prints."""

from __future__ import annotations

import collections
import io

import numpy as np
import pytest
from PIL import Image as Pillow

from medssl.data.formats import READERS, REASONS, Image

EACH = 60


def _mutate(content: bytes, generator: np.random.Generator) -> bytes:
    damaged = np.frombuffer(content, np.uint8).copy()
    # Headers stand at the front: half of the damage goes there.
    reach = len(damaged) if generator.random() < 0.5 else min(len(damaged), 1500)
    count = int(generator.choice([1, 5, 40]))
    damaged[generator.integers(0, reach, count)] = generator.integers(0, 256, count)
    return damaged.tobytes()[: len(content) if generator.random() < 0.8 else int(generator.integers(1, len(content)))]


def _survive(reader: str, content: bytes, folder, name: str, seed: int) -> collections.Counter:
    generator = np.random.default_rng(seed)
    outcomes: collections.Counter = collections.Counter()
    for _ in range(EACH):
        (folder / name).write_bytes(_mutate(content, generator))
        for item in READERS[reader].find(folder):
            for found in READERS[reader].read(folder, item):
                outcome = "image" if isinstance(found, Image) else found.reason
                assert outcome == "image" or outcome in REASONS
                outcomes[outcome] += 1
    return outcomes


@pytest.mark.parametrize("source", ["CT1_RLE", "CT1_JPLL", "CT1_JLSL", "CT1_J2KR", "CT1_UNC"])
def test_damaged_dicom(shared_data, tmp_path, capfd, source):
    content = (shared_data / "dicom" / "compressed" / source).read_bytes()
    outcomes = _survive("dicom", content, tmp_path, "x", seed=sum(source.encode()))
    assert outcomes.total() == EACH
    assert outcomes["unreadable"] == 0
    assert len(outcomes) > 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_damaged_rasters(tmp_path, capfd, kind, options):
    ramp = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(ramp).save(buffer, kind, **options)
    outcomes = _survive("raster", buffer.getvalue(), tmp_path, "x.png", seed=sum(str((kind, options)).encode()))
    assert outcomes.total() == EACH
    assert outcomes["unreadable"] == 0
    assert len(outcomes) > 2
    assert capfd.readouterr() == ("", "")


def test_damaged_npz(tmp_path, capfd):
    buffer = io.BytesIO()
    arrays = {f"{split}_images": np.add.outer(np.arange(4), np.eye(6)).astype(np.uint8) for split in ("train", "val", "test")}
    labels = {f"{split}_labels": np.zeros((4, 1), np.uint8) for split in ("train", "val", "test")}
    np.savez_compressed(buffer, **arrays, **labels)
    outcomes = _survive("medmnist", buffer.getvalue(), tmp_path, "x.npz", seed=0)
    assert outcomes["bad_npz"] > 10
    assert outcomes["unreadable"] == 0
    assert capfd.readouterr() == ("", "")
