"""MedMNIST's npz: rows over three splits, labels, colour, volumes and what is no MedMNIST."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from medssl.data.formats import READERS, Image, Item, Reject, medmnist, medmnist_file
from medssl.data.formats.options import ReadOptions

READER = READERS["medmnist"]
COUNTS = {"train": 300, "val": 20, "test": 40}


def _arrays(shape: tuple[int, ...] = (6, 5), labels: int = 1, counts: dict[str, int] = COUNTS) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in counts.items():
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, *shape), np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, 2, (count, labels), np.uint8)
    return arrays


def _write(path, arrays) -> None:
    np.savez_compressed(path, **arrays)


def test_rows_run_over_train_val_and_test(tmp_path):
    arrays = _arrays()
    _write(tmp_path / "set.npz", arrays)
    items = READER.find(tmp_path)
    assert items == [Item("set.npz", 0, 256), Item("set.npz", 256, 360)]
    images = [image for item in items for image in READER.read(tmp_path, item)]
    assert np.array_equal([image.pixels for image in images], np.concatenate([arrays[f"{s}_images"] for s in COUNTS]))
    assert [image.header.frame for image in images] == list(range(360))
    splits = [image.header.tags["medmnist_split"] for image in images]
    assert splits == ["train"] * 300 + ["val"] * 20 + ["test"] * 40
    labels = [image.header.tags["medmnist_label"] for image in images]
    assert labels == [str(value) for s in COUNTS for value in arrays[f"{s}_labels"][:, 0]]
    assert {(image.full_range, image.syntax, image.pixels.dtype.name) for image in images} == {((0.0, 255.0), "npz", "uint8")}


def test_several_labels_are_joined_by_commas(tmp_path):
    arrays = _arrays(labels=3)
    _write(tmp_path / "set.npz", arrays)
    (image,) = READER.read(tmp_path, Item("set.npz", 301, 302))
    assert image.header.tags["medmnist_label"] == ",".join(map(str, arrays["val_labels"][1]))


def test_a_file_that_has_changed_is_read_anew(tmp_path):
    arrays = _arrays()
    _write(tmp_path / "set.npz", arrays)
    first = next(READER.read(tmp_path, Item("set.npz", 0, 1))).pixels
    _write(tmp_path / "set.npz", {name: array + 1 for name, array in arrays.items()})
    assert np.array_equal(next(READER.read(tmp_path, Item("set.npz", 0, 1))).pixels, first + 1)


@pytest.mark.parametrize(("shape", "reason"), [((6, 5, 3), "colour"), ((6, 5, 6), "multi_frame")])
def test_colour_and_volumes_are_refused_row_by_row(tmp_path, shape, reason):
    _write(tmp_path / "set.npz", _arrays(shape))
    rejects = READER.read(tmp_path, Item("set.npz", 299, 301))
    assert [(reject.item, reject.reason) for reject in rejects] == [
        (Item("set.npz", 299, 300), reason),
        (Item("set.npz", 300, 301), reason),
    ]


def test_a_constant_row_does_not_cost_its_block(tmp_path):
    arrays = _arrays()
    arrays["train_images"][1] = 7
    _write(tmp_path / "set.npz", arrays)
    found = list(READER.read(tmp_path, Item("set.npz", 0, 3)))
    assert [isinstance(image, Image) for image in found] == [True, False, True]
    assert found[1] == Reject(Item("set.npz", 1, 2), "constant")


def _without(name):
    return {key: array for key, array in _arrays().items() if key != name}


@pytest.mark.parametrize(
    "arrays",
    [
        _without("val_images"),
        _without("test_labels"),
        {"something": np.zeros(3)},
        _arrays() | {"train_images": np.array([{}, None], dtype=object)},
        _arrays() | {"train_labels": np.array([["a"]] * 300)},
        _arrays() | {"train_images": np.zeros((300, 6, 5), np.float32)},
        _arrays() | {"train_images": np.zeros((299, 6, 5), np.uint8)},
        _arrays() | {"val_images": np.zeros((20, 30), np.uint8)},
        _arrays() | {"val_labels": np.zeros(20, np.uint8)},
    ],
)
def test_what_is_no_medmnist_gives_one_reject(tmp_path, arrays):
    _write(tmp_path / "set.npz", arrays)
    items = READER.find(tmp_path)
    assert items == [Item("set.npz")]
    (reject,) = READER.read(tmp_path, items[0])
    assert (reject.item, reject.reason) == (items[0], "bad_npz")


def test_damaged_data_give_one_reject_a_block(tmp_path):
    _write(tmp_path / "set.npz", _arrays())
    items = READER.find(tmp_path)
    content = bytearray((tmp_path / "set.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "set.npz") as archive:
        start = archive.getinfo("train_images.npy").header_offset + 2000
    content[start : start + 50] = bytes(50)
    (tmp_path / "set.npz").write_bytes(content)
    assert [[found.reason for found in READER.read(tmp_path, item)] for item in items] == [["bad_npz"], ["bad_npz"]]


def test_a_shape_that_the_file_cannot_hold_is_not_allocated(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 28, 28)})
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        for split in COUNTS:
            archive.writestr(f"{split}_images.npy", buffer.getvalue())
            archive.writestr(f"{split}_labels.npy", buffer.getvalue())
    assert next(READER.read(tmp_path, Item("set.npz"))).reason == "bad_npz"


def test_rows_that_are_not_there(tmp_path):
    _write(tmp_path / "set.npz", _arrays())
    assert next(READER.read(tmp_path, Item("set.npz", 400, 410))).reason == "bad_npz"


@pytest.mark.parametrize(
    ("name", "counts", "positives"),
    [("pneumoniamnist", (4708, 524, 624), 4273), ("breastmnist", (546, 78, 156), 570)],
)
def test_the_official_files(shared_data, name, counts, positives):
    root = shared_data / "medmnist"
    items = READER.find(root, [f"{name}.npz"])
    assert len(items) == -(-sum(counts) // medmnist.BLOCK)
    images = [image for item in items for image in READER.read(root, item)]
    splits = [image.header.tags["medmnist_split"] for image in images]
    assert tuple(splits.count(split) for split in ("train", "val", "test")) == counts
    assert [image.header.tags["medmnist_label"] for image in images].count("1") == positives
    assert {image.pixels.shape for image in images} == {(28, 28)}
    with np.load(root / f"{name}.npz", allow_pickle=False) as archive:
        assert np.array_equal(images[counts[0]].pixels, archive["val_images"][0])


def test_blocks_in_order_unpack_each_array_once(tmp_path, monkeypatch):
    """Besides once to see that it is whole."""
    _write(tmp_path / "set.npz", _arrays(counts={"train": 1000, "val": 300, "test": 300}))
    opened = []
    load = zipfile.ZipFile.open

    def count(self, name, *arguments, **options):
        opened.append(name)
        return load(self, name, *arguments, **options)

    items = READER.find(tmp_path)
    monkeypatch.setattr(zipfile.ZipFile, "open", count)
    medmnist_file._row_file.cache_clear()
    assert sum(len(list(READER.read(tmp_path, item))) for item in items) == 1600
    assert {name: opened.count(name) for name in opened if isinstance(name, str) and "images" in name} == {
        f"{split}_images.npy": 2 for split in COUNTS
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_in_any_order(tmp_path, save):
    arrays = _arrays()
    save(tmp_path / "set.npz", **arrays)
    whole = np.concatenate([arrays[f"{split}_images"] for split in COUNTS])
    for row in (350, 3, 2, 305, 299, 0, 359, 310):
        (image,) = READER.read(tmp_path, Item("set.npz", row, row + 1))
        assert np.array_equal(image.pixels, whole[row])
        assert image.pixels.flags.owndata or image.pixels.base.nbytes == image.pixels.nbytes


@pytest.mark.parametrize("side", [28, 64, 128, 224])
def test_every_published_size(tmp_path, side):
    arrays = _arrays((side, side), counts={"train": 3, "val": 2, "test": 2})
    _write(tmp_path / "set.npz", arrays)
    images = list(READER.read(tmp_path, Item("set.npz", 0, 7)))
    assert [image.pixels.shape for image in images] == [(side, side)] * 7


def test_colour_sets(tmp_path):
    arrays = _arrays((28, 28, 3), counts={"train": 3, "val": 2, "test": 2})
    arrays["train_images"][1] = arrays["train_images"][1, :, :, :1]
    _write(tmp_path / "set.npz", arrays)
    item = Item("set.npz", 0, 3)
    images = list(READER.read(tmp_path, item, (), ReadOptions(channels="rgb")))
    assert np.array_equal([image.pixels for image in images], arrays["train_images"])
    found = list(READER.read(tmp_path, item))
    assert [one.reason for one in (found[0], found[2])] == ["colour", "colour"]
    assert np.array_equal(found[1].pixels, arrays["train_images"][1, :, :, 0])


def test_grey_sets_in_colour_have_equal_channels(tmp_path):
    arrays = _arrays()
    _write(tmp_path / "set.npz", arrays)
    (image,) = READER.read(tmp_path, Item("set.npz", 5, 6), (), ReadOptions(channels="rgb"))
    assert np.array_equal(image.pixels, np.stack([arrays["train_images"][5]] * 3, axis=-1))


def test_sets_of_volumes(tmp_path):
    arrays = _arrays((7, 6, 5), counts={"train": 3, "val": 2, "test": 2})
    arrays["val_images"][0, 2] = 9
    _write(tmp_path / "set.npz", arrays)
    (volume,) = READER.read(tmp_path, Item("set.npz", 2, 3), (), ReadOptions(units="volumes"))
    assert np.array_equal(volume.voxels, arrays["train_images"][2])
    assert np.array_equal(volume.affine, np.eye(4))
    assert (volume.header.frame, volume.header.spacing, volume.full_range) == (2, None, (0.0, 255.0))
    found = list(READER.read(tmp_path, Item("set.npz", 3, 4), (), ReadOptions(units="slices")))
    assert [one.header.slice_index for one in found[:-1]] == [0, 1, 3, 4, 5, 6]
    assert (found[-1].reason, found[-1].item) == ("constant", Item("set.npz", 3, 4))
    # Axes run to the right, front and head; shown rows run from front to back and columns from right to left.
    assert np.array_equal(found[0].pixels, arrays["val_images"][0, 0, ::-1, ::-1])
    header = found[0].header
    assert (header.spacing, header.position, header.orientation, header.spacing_slice) == (None, None, None, None)
    assert header.tags["medmnist_split"] == "val"
    for axis, shape in (("coronal", (7, 5)), ("sagittal", (7, 6))):
        cut = list(READER.read(tmp_path, Item("set.npz", 0, 1), (), ReadOptions(units="slices", axis=axis)))
        assert {image.pixels.shape for image in cut} == {shape}
    (reject,) = READER.read(tmp_path, Item("set.npz", 0, 1), (), ReadOptions(units="volumes", channels="rgb"))
    assert reject.reason == "unsupported_type"


def test_flat_images_are_no_volumes(tmp_path):
    _write(tmp_path / "set.npz", _arrays())
    for units in ("slices", "volumes"):
        (reject,) = READER.read(tmp_path, Item("set.npz", 0, 1), (), ReadOptions(units=units))
        assert reject.reason == "unsupported_type"


def _write_headers(path, shape: tuple[int, ...], labels: tuple[int, ...], size: int | None = None, method=zipfile.ZIP_STORED):
    """Arrays that have headers and `size` zeros."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for split in COUNTS:
            for name, promised in (("images", shape), ("labels", labels)):
                buffer = io.BytesIO()
                np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": promised})
                count = abs(int(np.prod(promised))) if size is None else size
                archive.writestr(f"{split}_{name}.npy", buffer.getvalue() + bytes(count))


@pytest.mark.parametrize(
    ("shape", "labels", "reason"),
    [
        ((2**22 + 1, 1, 1), (2**22 + 1, 1), "too_large"),
        ((1, 2**13 + 1, 2**13), (1, 1), "too_large"),
        ((2, 2, 2), (2, 2**26), "too_large"),
        ((2, 0, 2), (2, 1), "bad_npz"),
        ((-2, -2, 2), (-2, 1), "bad_npz"),
    ],
)
def test_shapes_that_are_refused(tmp_path, shape, labels, reason):
    _write_headers(tmp_path / "set.npz", shape, labels, method=zipfile.ZIP_DEFLATED)
    assert next(READER.read(tmp_path, Item("set.npz"))).reason == reason
    assert READER.find(tmp_path) == [Item("set.npz")]


def test_arrays_by_columns_and_other_compressions_are_refused(tmp_path):
    arrays = _arrays(counts={"train": 3, "val": 2, "test": 2})
    _write(tmp_path / "set.npz", {name: np.asfortranarray(array) for name, array in arrays.items()})
    assert next(READER.read(tmp_path, Item("set.npz"))).reason == "bad_npz"
    _write_headers(tmp_path / "set.npz", (2, 4, 4), (2, 1), method=zipfile.ZIP_BZIP2)
    assert next(READER.read(tmp_path, Item("set.npz"))).detail == "train_images: compression 12"


def test_a_set_larger_than_memory_may_be_is_walked_along(tmp_path):
    """300 MB of rows; a child process, whose memory is its own."""
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for split, count in {"train": 6000, "val": 10, "test": 10}.items():
            with archive.open(f"{split}_images.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, 224, 224)})
                for row in range(count):
                    file.write(np.full(224 * 224 - 4, row % 250 + 1, np.uint8).tobytes() + row.to_bytes(4, "little"))
            with archive.open(f"{split}_labels.npy", "w") as file:
                np.lib.format.write_array(file, np.zeros((count, 1), np.uint8))
    script = r"""
import re, sys
from pathlib import Path
from medssl.data.formats.medmnist import MedMnistReader
import numpy
def peak():  # not getrusage, whose figure a process takes over from the one that started it
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
before, reader = peak(), MedMnistReader()
rows = 0
for item in reader.find(Path(sys.argv[1])):
    for image in reader.read(Path(sys.argv[1]), item):
        row = int.from_bytes(image.pixels.tobytes()[-4:], "little")
        assert row == (rows if rows < 6000 else (rows - 6000) % 10), (row, rows)
        rows += 1
assert rows == 6020
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50 * 1024  # KiB
