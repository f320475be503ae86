"""The images that the page of an archive draws and measures: a few hundred, spread over sources, modalities and vendors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from medssl.augment.evaluate import eval_view
from medssl.data.batches import FUNCTIONS, PixelBatch, PixelSource, choose_windows
from medssl.data.store import Store, place

MEASURED = 500  # images whose pixels make the histograms, divided among the modalities
MEASURED_VOLUMES = 40
BINS = 72  # at most
VALUES = 2**16  # pixels, evenly spaced, that are looked at of one image or volume
STRATA = ["source", "modality", "vendor", "kind", "channels"]
_BATCH = 16


def is_flagged(manifest: pd.DataFrame) -> pd.Series:
    """(N,) bool: the pixels may show text or a face."""
    return manifest["flags"].fillna("").ne("") | manifest["burned_in"].eq(True).fillna(False).astype(bool)


def draw(manifest: pd.DataFrame, rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Up to `count` of the positions `rows`, sorted by stratum: every stratum in turn gives one, each of another patient while it can.

    Strata are the combinations of STRATA, so that a vendor with ten images is seen beside one with a million.
    """
    mixed = generator.permutation(rows)
    part = manifest[[*STRATA, "patient"]].iloc[mixed]
    drawn = pd.DataFrame(
        {
            "row": mixed,
            "stratum": part.groupby(STRATA, dropna=False, observed=True).ngroup().to_numpy(),
            "again": part.groupby(["patient"]).cumcount().to_numpy(),
        }
    ).sort_values("again", kind="stable")
    drawn["turn"] = drawn.groupby("stratum").cumcount()
    drawn["again"] = drawn["again"] > 0
    drawn = drawn.sort_values(["again", "turn"], kind="stable").head(count)
    return drawn.sort_values(["stratum", "row"])["row"].to_numpy(np.int64, copy=True)


def views(store: Store, manifest: pd.DataFrame, rows: np.ndarray, size: int, window_rule: str) -> list[np.ndarray]:
    """Each row as the network sees it in evaluation: (C, size, size) float32 in [0, 1]; of a volume its middle axial slice."""
    found: dict[int, np.ndarray] = {}
    kind, channels = (manifest[name].to_numpy()[rows] for name in ("kind", "channels"))
    for count in np.unique(channels[kind == "image"]):
        own = rows[(kind == "image") & (channels == count)]
        for batch in PixelSource(store, manifest, own, window_rule).batches(_BATCH):
            found |= zip(batch.row.tolist(), eval_view(batch, size).numpy(), strict=True)
    for row in rows[kind == "volume"]:
        found[int(row)] = eval_view(_middle_slice(store, manifest, int(row), window_rule), size)[0].numpy()
    return [found[int(row)] for row in rows]


def _middle_slice(store: Store, manifest: pd.DataFrame, row: int, window_rule: str) -> PixelBatch:
    """A batch of one, shown as radiologists do: front above, the patient's right on the left."""
    about, voxels = manifest.iloc[row], _voxels(store, manifest, row)
    # Voxels run to the right, front and head (RAS).
    placed = place(
        np.ascontiguousarray(voxels[len(voxels) // 2, ::-1, ::-1]),
        about["store_slope"],
        about["store_intercept"],
        store.size,
    )
    window = choose_windows(manifest.iloc[[row]], window_rule).iloc[0]
    return PixelBatch(
        pixels=torch.from_numpy(placed.pixels.astype(np.float32))[None, None],
        slope=torch.tensor([placed.slope]),
        intercept=torch.tensor([placed.intercept]),
        center=torch.tensor([float(window["center"])]),
        width=torch.tensor([float(window["width"])]),
        function=torch.tensor([FUNCTIONS[window["function"]]]),
        invert=torch.tensor([bool(about["inverted"])]),
        box=torch.tensor([placed.box], dtype=torch.float32),
        row=torch.tensor([row]),
        spacing=torch.full((1, 2), float("nan")),
    )


def _voxels(store: Store, manifest: pd.DataFrame, row: int) -> np.ndarray:
    shard, start, *shape = manifest[["store_shard", "store_row", "depth", "rows", "columns"]].iloc[row].astype(int)
    return store.volume(shard, start, tuple(shape))


@dataclass
class Histogram:
    """Of the pixels of one modality in units: a mean over images, each of which counts the same."""

    modality: str
    kind: str  # image, colour image or volume
    edges: np.ndarray  # (B + 1,), units
    shares: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # vendor, "" where the file names none: (B,), share of an image's pixels
    counts: dict[str, int] = field(default_factory=dict)  # vendor: images
    outside: float = 0.0  # share of all pixels that lie outside of the edges
    window: tuple[float, float] | None = None  # medians of the windows' ends; None for colour, which has none


def histograms(store: Store, manifest: pd.DataFrame, window_rule: str, generator: np.random.Generator) -> list[Histogram]:
    """One for each modality and kind of image, most frequent first."""
    kinds = manifest["kind"].mask(manifest["channels"] == 3, "colour image")
    groups = manifest.groupby([manifest["modality"], kinds], dropna=False).indices
    groups = dict(sorted(groups.items(), key=lambda item: -len(item[1])))
    made = []
    for (modality, kind), rows in groups.items():
        most = MEASURED_VOLUMES if kind == "volume" else max(40, MEASURED // len(groups))
        chosen = draw(manifest, rows, most, generator)
        made.append(_histogram(store, manifest, chosen, modality if isinstance(modality, str) else "", kind, window_rule))
    return made


def _histogram(store: Store, manifest: pd.DataFrame, rows: np.ndarray, modality: str, kind: str, window_rule: str) -> Histogram:
    about = manifest.iloc[rows]
    found = Histogram(modality, kind, _edges(about))
    if kind != "colour image":
        windows = choose_windows(about, window_rule)
        ends = windows["center"] - windows["width"] / 2, windows["center"] + windows["width"] / 2
        found.window = tuple(float(end.median()) for end in ends)
    vendors = about["vendor"].fillna("").tolist()
    for vendor, values in zip(vendors, _units(store, manifest, rows, kind), strict=True):
        share = np.histogram(values, found.edges)[0] / len(values)
        found.shares[vendor] = found.shares.get(vendor, 0) + share
        found.counts[vendor] = found.counts.get(vendor, 0) + 1
        found.outside += max(0.0, 1 - float(share.sum())) / len(rows)
    found.shares = {vendor: total / found.counts[vendor] for vendor, total in found.shares.items()}
    return found


def _edges(about: pd.DataFrame) -> np.ndarray:
    """Bins over what most images hold. Their width is a whole number of the store's steps, else empty bins would comb the curve."""
    if (about["full_high"] - about["full_low"]).max() <= 255:
        low, high = about["full_low"].min(), about["full_high"].max()
    else:
        low, high = about["p00_5"].quantile(0.05), about["p99_5"].quantile(0.95)
    step = float(about["store_slope"].abs().median()) or 1.0
    width = max(1, int(np.ceil((high - low) / step / BINS))) * step
    return low - step / 2 + width * np.arange(max(2, int(np.ceil((high - low + step) / width)) + 1))


def _units(store: Store, manifest: pd.DataFrame, rows: np.ndarray, kind: str) -> Iterator[np.ndarray]:
    """The values of each row in units, in its valid box, thinned evenly to VALUES."""
    if kind == "volume":
        maps = manifest[["store_slope", "store_intercept"]].to_numpy()[rows]
        for row, (slope, intercept) in zip(rows, maps, strict=True):
            voxels = _voxels(store, manifest, int(row))
            step = max(1, round((voxels.size / VALUES) ** (1 / 3)))
            yield voxels[::step, ::step, ::step].astype(np.float64).ravel() * slope + intercept
        return
    step = max(1, round(store.size / VALUES**0.5))
    for batch in PixelSource(store, manifest, rows, "full").batches(_BATCH):
        for i in range(len(batch)):
            y0, x0, y1, x1 = map(int, batch.box[i].tolist())
            values = batch.pixels[i, :, y0:y1:step, x0:x1:step].numpy().astype(np.float64)
            yield values.ravel() * float(batch.slope[i]) + float(batch.intercept[i])
