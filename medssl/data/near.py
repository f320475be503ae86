"""Near-identical images: found by their hashes, confirmed on their pixels.

Two stages. Images whose 256-bit hashes agree in at least one of 16 bands of 16 bits and differ in at most MOST_FLIPPED bits
are candidates; up to 15 flipped bits leave a band untouched, so such pairs are always found. A candidate counts only if its
64 x 64 thumbnails agree after what all images of a kind share, the coarse shades, is taken away. Thresholds and what they
were measured on stand in docs/near_duplicates.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from medssl.data.perceptual import BANDS, as_words, thumbnail
from medssl.data.store import Store

MOST_FLIPPED = 40  # of 256 bits: 3 of 17 million pairs of different chest X-rays are that near, 99 % of 1 % crops within 29
LEAST_SIMILAR = 0.8  # of `similarity`: no two different chest X-rays reach 0.7, re-encodings and 1 % crops stay above 0.85
THUMBNAIL = 64  # px
BLUR = 2.0  # px of the thumbnail: shades coarser than this are not compared
FLAT = 0.3  # of the thumbnail's mean contrast: quieter places are not amplified to it
WINDOW = 1024  # images of one bucket that each image is compared with
MOST_CANDIDATES = 2_000_000
IMAGES_A_BLOCK = 1 << 14  # their hashes stay in the processor's cache
PAIRS_A_CHUNK = 2048  # at most twice as many thumbnails and what is made of them: 0.2 GB


@dataclass(frozen=True)
class Candidates:
    """Pairs with near hashes, and what was left out."""

    pairs: np.ndarray  # (M, 2) int64 positions, the first below the second, sorted
    flipped: np.ndarray  # (M,) int64 differing bits
    same_owner: int  # images that are near another one of their owner
    not_compared: int  # pairs of one bucket more than WINDOW places apart in its order, summed over the bands
    dropped: int  # candidates beyond `most`, those with the most differing bits; seen in two bands they count twice


@dataclass(frozen=True)
class NearImages:
    """Confirmed pairs of near-identical images, and what the search left out."""

    pairs: np.ndarray  # (M, 2) int64 positions in the manifest; of pixel-identical images only the first takes part
    similarity: np.ndarray  # (M,) float32, LEAST_SIMILAR to 1
    flipped: np.ndarray  # (M,) int64 differing bits of the hashes
    report: dict[str, int]  # images, candidates, confirmed (pairs), same_patient (images), not_compared, dropped (pairs)


def near_images(store: Store, manifest: pd.DataFrame) -> NearImages:
    """The pairs of near-identical images that are not of one patient, of all data sets together.

    Args:
        store: holds the rows of `manifest`.
        manifest: the columns manifest.LIKENESS, or more. Rows without a perceptual hash (volumes) take no part.
    """
    rows = np.flatnonzero(manifest["perceptual_hash"].notna() & ~manifest["exact_hash"].duplicated())
    found = candidate_pairs(as_words(manifest["perceptual_hash"].iloc[rows].tolist()), _owners(manifest)[rows])
    pairs = rows[found.pairs]
    similar = pair_similarity(store, manifest, pairs)
    keep = similar >= LEAST_SIMILAR
    report = {
        "images": len(rows),
        "candidates": len(pairs),
        "confirmed": int(keep.sum()),
        "same_patient": found.same_owner,
        "not_compared": found.not_compared,
        "dropped": found.dropped,
    }
    return NearImages(pairs[keep], similar[keep], found.flipped[keep], report)


def _owners(manifest: pd.DataFrame) -> np.ndarray:
    """(N,) int64: the patient of each row's image; an image of several patients is nobody's and has a number below 0."""
    patient, image = pd.factorize(manifest["patient"])[0], pd.factorize(manifest["exact_hash"])[0]
    images = image.max(initial=-1) + 1
    first, last = np.full(images, len(manifest)), np.full(images, -1)
    np.minimum.at(first, image, patient)
    np.maximum.at(last, image, patient)
    return np.where(first[image] == last[image], patient, -1 - image)


def candidate_pairs(
    words: np.ndarray, owners: np.ndarray | None = None, *, most_flipped: int = MOST_FLIPPED, most: int = MOST_CANDIDATES
) -> Candidates:
    """Pairs whose hashes share a band of bits and differ in at most `most_flipped` bits.

    Time and memory are bounded: in a bucket of more than WINDOW images each is compared with the WINDOW that follow it in
    the order of their next 48 bits, so that images that are all alike are still chained together. What is left out is counted.

    Args:
        words: (N, BANDS) uint16, see `perceptual.as_words`.
        owners: (N,) int64; pairs of one owner are left out. None: none are.
        most_flipped: of 256 bits.
        most: pairs to keep; beyond it those with the fewest differing bits are kept.
    """
    pool = _Pool(len(words), most)
    not_compared, beside_own = 0, np.zeros(len(words), bool)
    for band in range(BANDS):
        order, left = _buckets(words, band)
        not_compared += int(np.maximum(left - 1 - WINDOW, 0).sum())
        for first, second, flipped in _near_in_order(words[order].view(np.uint64), left, most_flipped):
            first, second = order[first], order[second]
            same = np.zeros(len(first), bool) if owners is None else owners[first] == owners[second]
            beside_own[first[same]] = beside_own[second[same]] = True
            pool.add(first[~same], second[~same], flipped[~same])
    pairs, flipped = pool.pairs()
    return Candidates(pairs, flipped, int(beside_own.sum()), not_compared, pool.dropped)


def _buckets(words: np.ndarray, band: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of images by a band and the 48 bits after it; for each place in it the images to its bucket's end, itself too."""
    key = np.zeros(len(words), np.uint64)
    for following in range(4):
        key = (key << np.uint64(16)) | words[:, (band + following) % BANDS].astype(np.uint64)
    order = np.argsort(key, kind="stable")
    bucket = words[order, band]
    ends = np.append(np.flatnonzero(bucket[1:] != bucket[:-1]) + 1, len(words))
    places = np.arange(len(words))
    return order, ends[np.searchsorted(ends, places, side="right")] - places


def _near_in_order(
    hashes: np.ndarray, left: np.ndarray, most_flipped: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Places of near pairs of one bucket and their differing bits, a block of first places and a distance at a time."""
    for start in range(0, len(left), IMAGES_A_BLOCK):
        first = np.arange(start, min(start + IMAGES_A_BLOCK, len(left)))
        for distance in range(1, WINDOW + 1):
            first = first[left[first] > distance]
            if not len(first):
                break
            counts = np.bitwise_count(hashes.take(first, axis=0) ^ hashes.take(first + distance, axis=0))
            # The sum of four bytes in one product: it fits a byte, for pairs of one bucket differ in at most 240 bits.
            flipped = (counts.view(np.uint32)[:, 0] * np.uint32(0x01010101)) >> np.uint32(24)
            near = np.flatnonzero(flipped <= most_flipped)
            if len(near):
                yield first[near], first[near] + distance, flipped[near].astype(np.int64)


class _Pool:
    """Distinct pairs in bounded memory."""

    def __init__(self, images: int, most: int) -> None:
        self.dropped = 0
        self._images, self._most = images, most
        self._keys, self._flipped = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        self._waiting = 0

    def add(self, first: np.ndarray, second: np.ndarray, flipped: np.ndarray) -> None:
        self._keys.append(np.minimum(first, second) * self._images + np.maximum(first, second))
        self._flipped.append(flipped)
        self._waiting += len(first)
        if self._waiting > self._most:
            self._settle()

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(M, 2) positions, sorted, and (M,) differing bits."""
        self._settle()
        return np.stack(np.divmod(self._keys[0], max(self._images, 1)), axis=1), self._flipped[0]

    def _settle(self) -> None:
        keys, place = np.unique(np.concatenate(self._keys), return_index=True)
        flipped = np.concatenate(self._flipped)[place]
        if len(keys) > self._most:
            kept = np.sort(np.argsort(flipped, kind="stable")[: self._most])
            self.dropped += len(keys) - self._most
            keys, flipped = keys[kept], flipped[kept]
        self._keys, self._flipped, self._waiting = [keys], [flipped], 0


def pair_similarity(store: Store, manifest: pd.DataFrame, pairs: np.ndarray) -> np.ndarray:
    """(M,) float32: `similarity` of the images at each of (M, 2) positions; memory does not grow with M."""
    similar = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), PAIRS_A_CHUNK):
        chunk = pairs[start : start + PAIRS_A_CHUNK]
        rows, place = np.unique(chunk, return_inverse=True)
        detail = details(thumbnails(store, manifest, rows))
        first, second = place.reshape(-1, 2).T
        similar[start : start + PAIRS_A_CHUNK] = similarity(detail[first], detail[second])
    return similar


def thumbnails(store: Store, manifest: pd.DataFrame, rows: np.ndarray, size: int = THUMBNAIL) -> np.ndarray:
    """(n, size, size) float32: the valid box of each stored square, stretched; high values are shown bright."""
    columns = ["store_shard", "store_row", "store_slope", "inverted", "box_y0", "box_x0", "box_y1", "box_x1"]
    part = manifest[columns].iloc[rows]
    shards, places = part["store_shard"].to_numpy(), part["store_row"].to_numpy()
    signs = np.where(part["inverted"].to_numpy(bool) != (part["store_slope"].to_numpy() < 0), -1, 1)
    boxes = part[columns[4:]].to_numpy()
    out = np.empty((len(part), size, size), np.float32)
    for number, (y0, x0, y1, x1) in enumerate(boxes):
        one = slice(number, number + 1)
        square = store.read(shards[one], places[one])[0]  # one at a time: a mixed batch would make deep images of coloured ones
        out[number] = thumbnail(square[y0:y1, x0:x1], size) * signs[number]
    return out


def details(thumbs: np.ndarray) -> np.ndarray:
    """(n, size * size) float32 unit vectors: what is finer than BLUR, with its contrast evened out over the image.

    Coarse shades are what images of one body part have in common; evening out the contrast keeps a burned-in label or one
    bright edge from deciding alone, and undoes most of a gamma curve or a window.
    """
    fine = thumbs - gaussian_filter(thumbs, (0, BLUR, BLUR), mode="nearest")
    power = gaussian_filter(fine * fine, (0, BLUR, BLUR), mode="nearest")
    floor = FLAT**2 * power.mean(axis=(1, 2), keepdims=True) + np.finfo(np.float32).tiny
    even = (fine / np.sqrt(power + floor)).reshape(len(thumbs), -1)
    even -= even.mean(axis=1, keepdims=True)
    return even / np.maximum(np.linalg.norm(even, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) float32, -1 to 1: normalised correlation of `details`, row by row."""
    return np.einsum("nd,nd->n", first, second)
