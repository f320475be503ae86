"""MedMNIST's npz: rows over three splits, labels, colour, volumes and what is no MedMNIST."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from medssl.data.formats import READERS, Image, Item, Reject, medmnist

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


def test_a_split_is_unpacked_once_for_all_its_blocks(tmp_path, monkeypatch):
    _write(tmp_path / "set.npz", _arrays(counts={"train": 1000, "val": 300, "test": 300}))
    loaded = []
    load = np.load

    def count(path, **options):
        loaded.append(path)
        assert options == {"allow_pickle": False}
        return load(path, **options)

    monkeypatch.setattr(np, "load", count)
    medmnist._load_split.cache_clear()
    items = READER.find(tmp_path)
    assert loaded == []
    assert sum(len(READER.read(tmp_path, item)) for item in items) == 1600
    assert len(loaded) == 3


def test_a_file_that_has_changed_is_read_anew(tmp_path):
    arrays = _arrays()
    _write(tmp_path / "set.npz", arrays)
    first = READER.read(tmp_path, Item("set.npz", 0, 1))[0].pixels
    _write(tmp_path / "set.npz", {name: array + 1 for name, array in arrays.items()})
    assert np.array_equal(READER.read(tmp_path, Item("set.npz", 0, 1))[0].pixels, first + 1)


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
    found = READER.read(tmp_path, Item("set.npz", 0, 3))
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
    assert READER.read(tmp_path, Item("set.npz"))[0].reason == "bad_npz"


def test_rows_that_are_not_there(tmp_path):
    _write(tmp_path / "set.npz", _arrays())
    assert READER.read(tmp_path, Item("set.npz", 400, 410))[0].reason == "bad_npz"


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
