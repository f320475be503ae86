"""Near-identical images: found among other images by hash and pixels, in bounded time, with what was left out counted."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medssl.data import near
from medssl.data.groups import shared_images
from medssl.data.near import candidate_pairs, details, near_images, similarity, thumbnails
from medssl.data.perceptual import BANDS, perceptual_hash
from medssl.data.reading import exact_hash
from medssl.data.splits import make_splits
from medssl.data.store import ShardWriter, Store, place, write_store
from medssl.task import BinaryTask


def picture(seed: int, side: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.normal(0, 1, (24, 24)).astype(np.float32))
    noise = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.clip(130 + 25 * noise - 60 * (x**2 + y**2), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int = 60) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def indexed(folder: Path, images: list[dict], size: int = 96) -> tuple[Store, pd.DataFrame]:
    """A store and a manifest of `images`: dicts of pixels, patient, and where they are not 1 and False, slope and inverted."""
    writer, rows, shards = ShardWriter(folder, "part"), [], []
    for number, image in enumerate(images):
        pixels, slope, inverted = image["pixels"], image.get("slope", 1.0), image.get("inverted", False)
        placed = place(pixels, slope, 0.0, size)
        file, row = writer.append(placed.pixels, "rgb" if pixels.ndim == 3 else "grey")
        shards.append(file)
        y0, x0, y1, x1 = placed.box
        sign = -1 if inverted != (slope < 0) else 1
        rows.append(
            {"row_key": f"k{number}", "source": image.get("source", "data"), "patient": image["patient"], "inverted": inverted}
            | {"exact_hash": exact_hash(pixels), "perceptual_hash": perceptual_hash(placed.pixels[y0:y1, x0:x1], sign)}
            | {"store_row": row, "store_slope": placed.slope, "box_y0": y0, "box_x0": x0, "box_y1": y1, "box_x1": x1}
            | {"official_split": None, "label.finding": image.get("label")}
        )
    used = writer.close()
    write_store(folder, folder, size, used, {})
    order = list(used)
    return Store(folder), pd.DataFrame(rows).assign(store_shard=[order.index(file) for file in shards])


def found(folder: Path, images: list[dict], size: int = 96) -> list[list[int]]:
    return near_images(*indexed(folder, images, size)).pairs.tolist()


def test_a_re_encoded_image_under_another_key_is_found_and_no_other(tmp_path):
    images = [{"pixels": picture(seed), "patient": f"p{seed}"} for seed in range(40)]
    images.append({"pixels": jpeg(picture(7)), "patient": "other key"})
    store, manifest = indexed(tmp_path, images)
    result = near_images(store, manifest)
    assert result.pairs.tolist() == [[7, 40]]
    assert result.similarity[0] > 0.9
    assert result.report == {"images": 41, "candidates": 1, "confirmed": 1, "same_patient": 0, "not_compared": 0, "dropped": 0}


def test_an_8_bit_export_of_a_monochrome1_image_in_colour_and_a_negative_slope_are_found(tmp_path):
    image = picture(3)
    images = [
        {"pixels": (4095 - 16 * image.astype(np.uint16)), "patient": "a", "inverted": True},
        {"pixels": image, "patient": "b"},
        {"pixels": np.repeat(jpeg(image)[..., None], 3, axis=2), "patient": "c"},
        {"pixels": -16 * image.astype(np.int16), "patient": "d", "slope": -1.0},
        {"pixels": 255 - image, "patient": "negative, not marked as such"},
    ]
    assert found(tmp_path, images) == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


def test_pairs_of_one_patient_are_counted_and_left_out(tmp_path):
    images = [{"pixels": picture(1), "patient": "a"}, {"pixels": jpeg(picture(1)), "patient": "a"}]
    store, manifest = indexed(tmp_path, images)
    result = near_images(store, manifest)
    assert result.pairs.shape == (0, 2)
    assert result.report["same_patient"] == 2


def test_an_image_of_several_patients_is_compared_with_each_ones(tmp_path):
    """Its first row is a's, and so is the near image; b, who has it too, must still be linked to that."""
    images = [{"pixels": picture(1), "patient": patient} for patient in "ab"] + [{"pixels": jpeg(picture(1)), "patient": "a"}]
    assert found(tmp_path, images) == [[0, 2]]


def test_volumes_and_an_empty_archive_take_no_part(tmp_path):
    store, manifest = indexed(tmp_path, [{"pixels": picture(1), "patient": "a"}, {"pixels": jpeg(picture(1)), "patient": "b"}])
    volumes = manifest.assign(perceptual_hash=None)
    assert near_images(store, volumes).pairs.shape == (0, 2)
    assert near_images(store, manifest.iloc[:0]).report["images"] == 0


def test_near_hashes_with_other_pixels_are_not_confirmed(tmp_path):
    store, manifest = indexed(tmp_path, [{"pixels": picture(seed), "patient": f"p{seed}"} for seed in range(2)])
    manifest["perceptual_hash"] = manifest["perceptual_hash"].iloc[0]
    result = near_images(store, manifest)
    assert result.pairs.shape == (0, 2)
    assert result.report == {"images": 2, "candidates": 1, "confirmed": 0, "same_patient": 0, "not_compared": 0, "dropped": 0}


def test_thumbnails_are_of_the_box_alone_and_bright_where_the_image_is(tmp_path):
    wide = np.full((20, 80), 50, np.uint8)
    wide[:, 40:] = 200
    store, manifest = indexed(
        tmp_path, [{"pixels": wide, "patient": "a"}, {"pixels": 255 - wide, "patient": "b", "inverted": True}], 64
    )
    first, second = thumbnails(store, manifest, np.array([0, 1]), 32)
    assert first.min() == 50  # no black border
    assert first[:, 20:].mean() > first[:, :12].mean()
    assert np.allclose(first - first.mean(), second - second.mean())


def test_a_flat_image_is_like_nothing():
    flat = details(np.zeros((2, 64, 64), np.float32))
    assert np.isfinite(flat).all()
    assert similarity(flat[:1], flat[1:])[0] == 0


def random_words(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 16, (count, BANDS)).astype(np.uint16)


def flip(words: np.ndarray, bits: np.ndarray) -> np.ndarray:
    out = words.copy()
    for bit in bits:
        out[bit // 16] ^= np.uint16(1 << (bit % 16))
    return out


def test_fifteen_flipped_bits_are_always_found():
    words, rng = random_words(3000), np.random.default_rng(1)
    spread = [rng.permutation(BANDS)[:15] * 16 + rng.integers(0, 16, 15) for _ in range(200)]  # the worst case: one a band
    planted = np.stack([flip(words[number], bits) for number, bits in enumerate(spread)])
    result = candidate_pairs(np.concatenate([words, planted]))
    assert result.pairs.tolist() == [[number, 3000 + number] for number in range(200)]
    assert set(result.flipped) == {15}


def test_the_pairs_are_those_of_comparing_all_with_all():
    rng = np.random.default_rng(2)
    words = np.repeat(random_words(60), 5, axis=0)
    words = np.stack([flip(word, rng.choice(256, rng.integers(0, 30), replace=False)) for word in words])
    result = candidate_pairs(words)
    between = np.bitwise_count(words[:, None] ^ words[None]).sum(-1)
    expected = np.argwhere(np.triu((between <= near.MOST_FLIPPED) & (words[:, None] == words[None]).any(-1), 1))
    assert result.pairs.tolist() == expected.tolist()
    assert result.flipped.tolist() == between[tuple(expected.T)].tolist()


def test_a_bucket_of_very_many_is_cut_short_chained_and_counted(monkeypatch):
    monkeypatch.setattr(near, "WINDOW", 10)
    words = np.repeat(random_words(1), 500, axis=0)
    result = candidate_pairs(words)
    neighbours = 500 * 10 - 10 * 11 // 2
    assert len(result.pairs) == neighbours
    assert result.not_compared == BANDS * (500 * 499 // 2 - neighbours)
    manifest = pd.DataFrame({"row_key": range(500), "source": "s", "patient": range(500), "exact_hash": range(500)})
    assert shared_images(manifest, result.pairs)["images"].tolist() == [500]


def test_more_candidates_than_fit_are_dropped_farthest_first_and_counted():
    words = np.repeat(random_words(20), 2, axis=0)
    for number in range(20):
        words[2 * number + 1] = flip(words[2 * number], np.arange(number) * 16 % 256)
    result = candidate_pairs(words, most=8)
    assert sorted(result.flipped) == list(range(8))
    assert result.dropped > 0


def test_a_held_out_patients_re_encoded_image_is_kept_from_pretraining(tmp_path):
    task = BinaryTask(kind="binary", data="labelled", target="finding", positive="yes")
    labelled = [
        {"pixels": picture(seed), "patient": f"p{seed}", "source": "labelled", "label": "yes" if seed % 2 else "no"}
        for seed in range(40)
    ]
    _, manifest = indexed(tmp_path / "first", labelled)
    splits = make_splits(manifest, task, 0, transductive=False)
    held = int(np.flatnonzero(splits["split"] == "test")[0])
    copies = [{"pixels": jpeg(picture(held)), "patient": "other key", "source": "archive"}]
    copies += [{"pixels": picture(99), "patient": "other key", "source": "archive"}]
    store, manifest = indexed(tmp_path / "second", labelled + copies)
    splits = make_splits(manifest, task, 0, transductive=False, near=near_images(store, manifest).pairs)
    assert splits["excluded"].tolist()[-2:] == ["near_held_out", "linked_to_held_out"]
    assert splits["split"].tolist()[held] == "test"


def chest(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "kermany_cxr" / "images").rglob("*.jpeg"))


def opened(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def test_re_encoded_chest_radiographs_are_found_and_their_neighbours_not(tmp_path, shared_data):
    originals = [opened(path) for path in chest(shared_data)[::40]]
    images = [{"pixels": pixels, "patient": f"p{number}"} for number, pixels in enumerate(originals)]
    for number, pixels in enumerate(originals[:60]):
        small = np.asarray(Image.fromarray(pixels).resize((160, 160), Image.Resampling.LANCZOS))
        export = jpeg(np.clip(np.rint(255 * (small / 255) ** 1.1), 0, 255).astype(np.uint8), 50)
        images.append({"pixels": export, "patient": f"export {number}"})
    assert found(tmp_path, images) == [[number, len(originals) + number] for number in range(60)]


def test_an_8_bit_export_of_a_dicom_radiograph_is_found(tmp_path, shared_data):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(shared_data / "dicom" / "chest" / "RG1_J2KR.dcm")
    pixels = dataset.pixel_array
    assert dataset.PhotometricInterpretation == "MONOCHROME1"
    low, high = np.percentile(pixels, [1, 99])
    shown = np.rint(255 * (1 - np.clip((pixels - low) / (high - low), 0, 1))).astype(np.uint8)
    export = jpeg(np.asarray(Image.fromarray(shown).resize((600, 640), Image.Resampling.LANCZOS)), 80)
    images = [{"pixels": pixels, "patient": "a", "inverted": True}, {"pixels": export, "patient": "b"}]
    images += [{"pixels": opened(path), "patient": path.name} for path in chest(shared_data)[:50]]
    assert found(tmp_path, images, 224)[0] == [0, 1]
    assert len(found(tmp_path, images, 224)) == 1


@pytest.mark.long
def test_no_two_different_chest_radiographs_are_taken_for_one(tmp_path, shared_data):
    store, manifest = indexed(tmp_path, [{"pixels": opened(path), "patient": str(path)} for path in chest(shared_data)], 224)
    result = near_images(store, manifest)
    assert result.report["confirmed"] == 0
    groups = shared_images(manifest, result.pairs)
    assert len(groups) == 30
    assert groups["identical"].all()
    assert groups["images"].sum() == 62
