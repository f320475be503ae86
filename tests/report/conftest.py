from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from medssl.data.manifest import COLUMNS, REJECT_COLUMNS, SPLIT_COLUMNS, schema_of, targets_of, write_table
from medssl.data.store import ShardWriter, Store, place, write_store
from medssl.evaluation.comparison import compare
from medssl.report.facts import ArmFacts, Facts, SplitFacts


def make_comparison(
    arms: tuple[str, ...] = ("random", "imagenet", "in_domain"),
    budgets: tuple[tuple[str, int], ...] = (("40", 40), ("all", 412)),
    modes: tuple[str, ...] = ("linear", "full"),
    patients: int = 120,
    reference: str = "imagenet",
) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = rng.random(patients) < 0.4
    noise = rng.normal(size=patients)
    tables = []
    for mode in modes:
        for budget, size in budgets:
            for seed in range(2):
                for i, arm in enumerate(arms):
                    logit = (0.3 + 0.5 * i) * (2 * labels - 1) + noise + 0.3 * rng.normal(size=patients)
                    table = pd.DataFrame({"label": labels.astype(int), "score": 1 / (1 + np.exp(-logit))})
                    table = table.assign(arm=arm, mode=mode, budget=budget, seed=seed, threshold=0.5, split="test")
                    table["budget_patients"], table["budget_images"] = size, size + 5
                    table["row_key"] = table["patient"] = [f"key{i}" for i in range(patients)]
                    tables.append(table)
    return compare(pd.concat(tables, ignore_index=True), reference, replicates=100)


@pytest.fixture(scope="session")
def comparison() -> pd.DataFrame:
    return make_comparison()


@pytest.fixture
def make():
    return make_comparison


@pytest.fixture
def facts() -> Facts:
    return Facts(
        study="Chest X-ray",
        target="pneumonia",
        positive_class="pneumonia",
        splits=[SplitFacts("archive", 1200, 5210, None), SplitFacts("test", 120, 120, 48)],
        arms=[
            ArmFacts("random", "random"),
            ArmFacts("imagenet", "imagenet", weights="package, sha256 1f3a"),
            ArmFacts("in_domain", "random", "simsiam", 200, 1_824_000, 0.97, 61.3, 512, "drawn with seed 0"),
        ],
        exclusions={"test patients left out of pretraining": 832, "duplicates": 0},
        encoder={"backbone": "timm/tf_efficientnet_lite0", "input size": "64 × 64"},
        versions={"torch": "2.15.0"},
        digests={"splits": "sha256 99b1"},
    )


SIZE = 16  # of the small archive's store


@dataclass
class SmallArchive:
    """Tables and store of an archive that is made up row by row."""

    folder: Path
    manifest: pd.DataFrame
    splits: pd.DataFrame
    rejects: pd.DataFrame

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def write(self) -> None:
        """The files that `medssl index` writes; the first two images count as nearly identical."""
        write_table(self.folder / "manifest.parquet", self.manifest, schema_of(COLUMNS, targets_of(self.manifest)))
        write_table(self.folder / "splits.parquet", self.splits, schema_of(SPLIT_COLUMNS))
        np.save(self.folder / "near.npy", np.array([[0, 1]]))
        write_table(self.folder / "rejects.parquet", self.rejects, schema_of(REJECT_COLUMNS))


def make_archive(folder: Path, images: list[tuple[np.ndarray, dict]], labels: dict[str, list] | None = None) -> SmallArchive:
    """An archive of `images`: pixels (H, W), (H, W, 3) or voxels (D, H, W), and the columns in which a row differs."""
    writer, rows, files = ShardWriter(folder, "part"), [], []
    for i, (pixels, changes) in enumerate(images):
        row = dict.fromkeys(column.name for column in COLUMNS)
        row |= {"row_key": f"{i:016x}", "source": "xray", "patient": f"patient{i}", "patient_from": "id", "kind": "image"}
        row |= {"frame": 0, "modality": "CR", "channels": 1, "slope": 1.0, "intercept": 0.0, "full_low": 0.0, "full_high": 255.0}
        row |= {"modality_lut": False, "inverted": False, "padding": 0.0, "syntax": "PNG", "decoder": "pillow 12"}
        row |= {"exact_hash": f"hash{i}", "rows": 224, "columns": 224}
        slope, intercept = changes.get("slope", 1.0), changes.get("intercept", 0.0)
        if changes.get("kind") == "volume":
            kind, stored, box = "volume", pixels, (0, 0, 0, 0)
            row |= dict(zip(("depth", "rows", "columns"), pixels.shape, strict=True))
        else:
            placed = place(pixels, slope, intercept, SIZE)
            stored, box, slope, intercept = placed.pixels, placed.box, placed.slope, placed.intercept
            kind, row["channels"] = ("rgb", 3) if pixels.ndim == 3 else ("grey", 1)
        file, row["store_row"] = writer.append(stored, kind)
        files.append(file)
        row |= {"store_slope": slope, "store_intercept": intercept}
        row |= dict(zip(("box_y0", "box_x0", "box_y1", "box_x1"), box, strict=True))
        values = np.percentile(pixels, [0.5, 1, 50, 99, 99.5]) * changes.get("slope", 1.0) + changes.get("intercept", 0.0)
        row |= dict(zip(("p00_5", "p01", "p50", "p99", "p99_5"), values, strict=True))
        rows.append(row | changes)
    shards = writer.close()
    write_store(folder / "store", folder, SIZE, shards, {})
    for i, (row, file) in enumerate(zip(rows, files, strict=True)):
        row["store_shard"] = list(shards).index(file)
        row |= {f"label.{target}": values[i] for target, values in (labels or {}).items()}
    # By way of Arrow the columns have the types that they are read with.
    manifest = pa.Table.from_pylist(rows, schema_of(COLUMNS, list(labels or {}))).to_pandas()
    splits = (
        manifest[["row_key", "source", "patient"]]
        .assign(group=pd.factorize(manifest["patient"])[0], split="train")
        .assign(label=1.0, pretrain=True, excluded=None, study=None, leaks=False)
    )
    rejects = pd.DataFrame(columns=[column.name for column in REJECT_COLUMNS], dtype=object)
    return SmallArchive(folder, manifest, splits, rejects)


@pytest.fixture
def archive_of(tmp_path):
    """`archive_of(images, labels)`: see `make_archive`."""
    return lambda images, labels=None: make_archive(tmp_path / "archive", images, labels)


@pytest.fixture
def ramp() -> np.ndarray:
    """(20, 20) uint8 with values from 0 to 255."""
    return np.linspace(0, 255, 400).reshape(20, 20).round().astype(np.uint8)
