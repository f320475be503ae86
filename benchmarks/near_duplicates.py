"""How surely re-encoded images are found, and how many pairs of different images are taken for one, on real sets.

    python benchmarks/near_duplicates.py [--data FOLDER] [--size 224] [--images 1000] [--million]

Prints Markdown tables; FOLDER holds kermany_cxr, breakhis_tiles, medmnist and hippocampus.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from common import machine, table

from medssl.data.near import LEAST_SIMILAR, MOST_FLIPPED, THUMBNAIL, candidate_pairs, details, similarity
from medssl.data.perceptual import as_words, perceptual_hash, thumbnail
from medssl.data.store import place

Alter = Callable[[np.ndarray], np.ndarray]


def jpeg(quality: int) -> Alter:
    def alter(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("L"))

    return alter


def resized(factor: float, *, back: bool) -> Alter:
    def alter(image: np.ndarray) -> np.ndarray:
        height, width = image.shape
        small = Image.fromarray(image).resize((round(width * factor), round(height * factor)), Image.Resampling.LANCZOS)
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC) if back else small)

    return alter


def mapped(curve: Alter) -> Alter:
    """A curve from [0, 1] to [0, 1], clipped and rounded to 8 bits."""
    return lambda image: np.rint(np.clip(curve(image / 255.0), 0, 1) * 255).astype(np.uint8)


def windowed(percent: float) -> Alter:
    def curve(image: np.ndarray) -> np.ndarray:
        low, high = np.percentile(image, [percent, 100 - percent])
        return (image - low) / max(high - low, 1 / 255)

    return mapped(curve)


def cropped(top: float, left: float, bottom: float, right: float) -> Alter:
    def alter(image: np.ndarray) -> np.ndarray:
        height, width = image.shape
        return image[round(height * top) : height - round(height * bottom), round(width * left) : width - round(width * right)]

    return alter


def labelled(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    out = image.copy()
    out[int(0.04 * height) : int(0.09 * height), int(0.04 * width) : int(0.25 * width)] = 255
    return out


def turned(degrees: float) -> Alter:
    return lambda image: np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC))


def chained(*alters: Alter) -> Alter:
    def alter(image: np.ndarray) -> np.ndarray:
        for one in alters:
            image = one(image)
        return image

    return alter


ALTERATIONS: dict[str, Alter] = {
    **{f"JPEG quality {quality}": jpeg(quality) for quality in (95, 75, 50, 30)},
    **{f"resized to {factor} and back": resized(factor, back=True) for factor in (0.5, 0.7, 0.9)},
    "resized to 0.5": resized(0.5, back=False),
    **{f"gamma {gamma}": mapped(lambda image, gamma=gamma: image**gamma) for gamma in (0.9, 1.1, 0.67, 1.5)},
    **{f"brightness x {factor}": mapped(lambda image, factor=factor: image * factor) for factor in (0.9, 1.1)},
    **{f"brightness {step:+.0%}": mapped(lambda image, step=step: image + step) for step in (-0.1, 0.1)},
    **{f"window from percentile {percent} to {100 - percent}": windowed(percent) for percent in (2, 5)},
    "0.7 of the size, gamma 1.1, JPEG 50": chained(resized(0.7, back=False), ALTER := mapped(lambda image: image**1.1), jpeg(50)),
    "crop 0.5 % of each side": cropped(0.005, 0.005, 0.005, 0.005),
    "crop 1 % of each side": cropped(0.01, 0.01, 0.01, 0.01),
    "crop 1 % of two sides": cropped(0.01, 0.01, 0, 0),
    "crop 1 %, 0.7 of the size, gamma 1.1, JPEG 50": chained(
        cropped(0.01, 0.01, 0, 0), resized(0.7, back=False), ALTER, jpeg(50)
    ),
    "crop 2 % of two sides": cropped(0.02, 0.02, 0, 0),
    "crop 2 % of each side": cropped(0.02, 0.02, 0.02, 0.02),
    "crop 5 % of each side": cropped(0.05, 0.05, 0.05, 0.05),
    "border of 2 %": lambda image: np.pad(image, round(image.shape[0] * 0.02)),
    "white label of 21 % x 5 %": labelled,
    "turned by 1 degree": turned(1),
    "turned by 2 degrees": turned(2),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "negative": lambda image: 255 - image,
}


def stored(image: np.ndarray, size: int) -> tuple[str, np.ndarray]:
    """Hash and thumbnail of an image as they come out of a store of `size`."""
    placed = place(image, 1.0, 0.0, size)
    y0, x0, y1, x1 = placed.box
    return perceptual_hash(placed.pixels[y0:y1, x0:x1]), thumbnail(placed.pixels[y0:y1, x0:x1], THUMBNAIL)


def described(images: np.ndarray | list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 16) uint16 bands and (N, 4096) float32 details."""
    hashes, thumbs = zip(*(stored(image, size) for image in images), strict=True)
    parts = np.array_split(np.stack(thumbs), max(1, len(thumbs) // 500))
    return as_words(hashes), np.concatenate([details(part) for part in parts])


def bits_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.bitwise_count(first ^ second).sum(-1, dtype=np.int64)


def found_again(images: np.ndarray, chosen: np.ndarray, size: int, known: tuple[np.ndarray, np.ndarray]) -> list[dict]:
    """A row an alteration: what share of `chosen` the search finds again."""
    rows = []
    for name, alter in ALTERATIONS.items():
        words, detail = described([alter(images[number]) for number in chosen], size)
        flipped = bits_between(words, known[0][chosen])
        candidate = (words == known[0][chosen]).any(axis=1) & (flipped <= MOST_FLIPPED)
        similar = similarity(detail, known[1][chosen])
        rows.append(
            {
                "alteration": name,
                "bits: median": int(np.median(flipped)),
                "99 %": int(np.quantile(flipped, 0.99)),
                "similarity: 1 %": f"{np.quantile(similar, 0.01):.2f}",
                "least": f"{similar.min():.2f}",
                "candidates": f"{candidate.mean():.1%}",
                "found": f"{(candidate & (similar >= LEAST_SIMILAR)).mean():.1%}",
            }
        )
    return rows


def false_pairs(images: np.ndarray | list[np.ndarray], known: tuple[np.ndarray, np.ndarray]) -> dict[str, object]:
    """Bits and similarity of all pairs of different images."""
    words, detail = known
    image = np.unique([one.tobytes() for one in images], return_inverse=True)[1]
    flips, tops, pairs, hits = np.zeros(257, int), np.zeros(4, int), 0, 0
    for start in range(0, len(words), 500):
        here = np.arange(start, min(start + 500, len(words)))
        different = (image[here, None] != image[None]) & (np.arange(len(words))[None] > here[:, None])
        similar = (detail[here] @ detail.T)[different]
        bits = bits_between(words[here, None], words[None])[different]
        flips += np.bincount(bits, minlength=257)
        tops += [(similar >= level).sum() for level in (0.5, 0.6, 0.7, LEAST_SIMILAR)]
        hits += int(((similar >= LEAST_SIMILAR) & (bits <= MOST_FLIPPED)).sum())
        pairs += len(bits)
    return {
        "images": len(words),
        "different": len(np.unique(image)),
        "pairs": f"{pairs:,}",
        "fewest bits": int(np.flatnonzero(flips)[0]),
        f"<= {MOST_FLIPPED} bits": int(flips[: MOST_FLIPPED + 1].sum()),
        **{f"similar >= {level}": int(count) for level, count in zip((0.5, 0.6, 0.7, LEAST_SIMILAR), tops, strict=True)},
        "both": hits,
    }


def chest(data: Path) -> np.ndarray:
    paths = sorted((data / "kermany_cxr" / "images").rglob("*.jpeg"))
    return np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])


def other_sets(data: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    tiles = sorted((data / "breakhis_tiles").rglob("*.png"))
    yield "breakhis_tiles", [np.asarray(Image.open(path).convert("L")) for path in tiles]
    for name in ("pneumoniamnist", "breastmnist"):
        with np.load(data / "medmnist" / f"{name}.npz") as arrays:
            yield f"{name}, 28 px", list(np.concatenate([arrays[f"{part}_images"] for part in ("train", "val", "test")]))


def slices(data: Path, volumes: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Axial slices of MR volumes, as uint16, and the volume of each."""
    import nibabel

    images, owners = [], []
    for owner, path in enumerate(sorted((data / "hippocampus" / "images").glob("[!.]*.nii.gz"))[:volumes]):
        voxels = np.asarray(nibabel.load(path).dataobj, np.float64)
        scaled = np.rint((voxels - voxels.min()) / np.ptp(voxels) * 65535).astype(np.uint16)
        images += [np.ascontiguousarray(scaled[:, :, k]) for k in range(scaled.shape[2])]
        owners += [owner] * scaled.shape[2]
    return images, np.array(owners)


def million(words: np.ndarray, count: int = 1_000_000) -> dict[str, object]:
    """The search among random hashes whose bits are as correlated as those of `words`: a Gaussian under every sign."""
    bits = np.unpackbits(words.astype(">u2").view(np.uint8), axis=1).astype(np.float64)
    share = np.clip(bits.mean(0), 1 / len(bits), 1 - 1 / len(bits))
    deviation = np.maximum(bits.std(0), 1e-9)
    angle = np.sin(
        np.pi / 2 * np.cov((bits - share).T) / np.outer(deviation, deviation)
    )  # arcsine law: signs' correlation to the Gaussian's
    values, vectors = np.linalg.eigh(angle)
    root = (vectors * np.sqrt(np.clip(values, 1e-6, None))).astype(np.float32)
    scale = np.sqrt((root**2).sum(1))
    from scipy.special import ndtri

    rng, out = np.random.default_rng(0), np.empty((count, words.shape[1]), np.uint16)
    level = ndtri(share).astype(np.float32) * scale
    for start in range(0, count, 50_000):
        drawn = rng.standard_normal((min(50_000, count - start), len(share)), dtype=np.float32) @ root.T + level
        out[start : start + len(drawn)] = np.packbits(drawn > 0, axis=1).view(">u2").astype(np.uint16)
    tracemalloc.start()
    begun = time.perf_counter()
    found = candidate_pairs(out)
    seconds, peak = time.perf_counter() - begun, tracemalloc.get_traced_memory()[1]
    return {
        "images": f"{count:,}",
        "seconds": f"{seconds:.0f}",
        "memory, MB": peak >> 20,
        "candidates": len(found.pairs),
        "not compared": f"{found.not_compared:,}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--million", action="store_true")
    given = parser.parse_args()
    print(machine(["numpy", "scipy", "pillow"]), f"store of {given.size} px\n")
    images = chest(given.data)
    known = described(images, given.size)
    chosen = np.random.default_rng(0).choice(len(images), min(given.images, len(images)), replace=False)
    print(table(found_again(images, chosen, given.size, known)), "\n")
    different = [{"set": "kermany_cxr", **false_pairs(images, known)}]
    for name, others in other_sets(given.data):
        different.append({"set": name, **false_pairs(others, described(others, given.size))})
    print(table(different), "\n")
    cut, owners = slices(given.data, 100)
    words, detail = described(cut, given.size)
    pairs = candidate_pairs(words).pairs
    same = owners[pairs[:, 0]] == owners[pairs[:, 1]]
    sure = similarity(detail[pairs[:, 0]], detail[pairs[:, 1]]) >= LEAST_SIMILAR
    row = {"slices": len(cut), "volumes": len(np.unique(owners)), "candidates of one volume": int(same.sum())}
    print(
        table(
            [
                row
                | {
                    "of two": int((~same).sum()),
                    "confirmed of one": int((same & sure).sum()),
                    "confirmed of two": int((~same & sure).sum()),
                }
            ]
        )
    )
    if given.million:
        print("\n" + table([million(known[0])]))


if __name__ == "__main__":
    main()
