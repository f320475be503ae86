"""Twenty thousand damaged files, read in processes of their own: none may fail, hang or take a gigabyte."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

pytestmark = pytest.mark.long

FILES = int(os.environ.get("MEDSSL_FUZZ_FILES", "20000"))
"""Damaged files over all formats."""
SHARES = {"dicom": 0.6, "raster": 0.25, "nifti": 0.15}
SECONDS = 10  # for a file
MOST_BYTES = 2**30


def _run(reader: str, folder: Path, seed: int, first: int, last: int) -> dict:
    """What a child process reports of damaged files `first` to `last`."""
    script = Path(__file__).with_name("fuzzing.py")
    command = [sys.executable, str(script), reader, str(folder), str(seed), str(first), str(last)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1) as child:
        number, begun = "none", time.monotonic()
        while True:
            # The first line comes once the decoders are imported.
            ready, _, _ = select.select([child.stdout], [], [], SECONDS + (60 if number == "none" else 0))
            if not ready:
                child.kill()
                pytest.fail(f"{reader}: damaged file {number} of seed {seed} took more than {SECONDS} s")
            line = child.stdout.readline()
            if not line:
                pytest.fail(f"{reader}: damaged file {number} of seed {seed} ended the process: {child.stderr.read()[-2000:]}")
            if line.startswith("{"):
                assert child.stderr.read() == ""
                assert time.monotonic() - begun > 0
                return json.loads(line)
            number = line.strip()


def _sources(reader: str, folder: Path, pydicom_files: Path, enhanced: Path) -> None:
    """Files to damage, small ones of every kind, in `folder`."""
    if reader == "dicom":
        for path in [*sorted(pydicom_files.glob("*.dcm")), pydicom_files / "dicomdirtests" / "DICOMDIR", enhanced]:
            if path.stat().st_size < 330_000:
                shutil.copy(path, folder / path.name)
        return
    generator = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
    if reader == "nifti":
        import nibabel

        for number, kind in enumerate((np.uint8, np.int16, np.float32)):
            voxels = generator.integers(0, 200, (9, 8, 7)).astype(kind)
            image = nibabel.Nifti1Image(voxels, np.eye(4))
            for suffix in ("nii", "nii.gz"):
                nibabel.save(image, folder / f"volume{number}.{suffix}")
        return
    colour = np.stack([ramp, ramp.T[:60, :60].repeat(2, 1)[:, :80], 255 - ramp], axis=-1)
    for name, pixels in {"grey": ramp, "colour": colour, "deep": ramp.astype(np.uint16) * 200}.items():
        Pillow.fromarray(pixels).save(folder / f"{name}.png")
        Pillow.fromarray(pixels).save(folder / f"{name}.tif")
        Pillow.fromarray(pixels).save(folder / f"{name}_lzw.tif", compression="tiff_lzw")
        if name != "deep":
            Pillow.fromarray(pixels).save(folder / f"{name}.jpg")
            Pillow.fromarray(pixels).save(folder / f"{name}_progressive.jpg", progressive=True)


@pytest.mark.parametrize("reader", sorted(SHARES))
def test_damaged_files_neither_fail_nor_hang(reader, tmp_path, pydicom_files, enhanced):
    folder = tmp_path / "sources"
    folder.mkdir()
    _sources(reader, folder, pydicom_files, enhanced)
    files, step = round(FILES * SHARES[reader]), 2000
    outcomes: dict[str, int] = {}
    for first in range(0, files, step):
        report = _run(reader, folder, 0, first, min(first + step, files))
        assert report["bytes"] < MOST_BYTES
        for outcome, count in report["outcomes"].items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    assert sum(outcomes.values()) >= files
    assert outcomes["read"] > 0.02 * files
    assert len(outcomes) > 3
