"""The manifest: a row an image. Its columns, their types, units, and what an empty value means; no identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medssl.errors import StoreError
from medssl.files import replacing

VERSION = 2


class Column(NamedTuple):
    """One column of a table: its Arrow type, and for people its unit and what empty means."""

    name: str
    type: pa.DataType
    meaning: str
    empty: str = "never"


COLUMNS = (
    Column("row_key", pa.string(), "key of the image; `medssl locate` resolves it on the machine that indexed it"),
    Column("source", pa.string(), "name of the data set in the study file"),
    Column("patient", pa.string(), "key of the patient: HMAC-SHA256 of issuer and normalised patient ID"),
    Column("patient_from", pa.string(), "id, study (the ID was empty or a placeholder) or image (the card knows no patient)"),
    Column("study", pa.string(), "key of the study", "the format has no studies"),
    Column(
        "series",
        pa.string(),
        "key of the series; of a tile its slide, of a slice that was cut from a file that file",
        "the format has no series",
    ),
    Column("kind", pa.string(), "image (one plane) or volume"),
    Column("frame", pa.int32(), "frame in its file, row in its array, tile in its slide; from 0"),
    Column("slice", pa.int32(), "place in the volume that the slice was cut from; from 0", "not cut from a volume"),
    Column("tile_x", pa.int32(), "left edge of the tile at the slide's full resolution, px", "not a tile"),
    Column("tile_y", pa.int32(), "top edge of the tile at the slide's full resolution, px", "not a tile"),
    Column("tile_row", pa.int32(), "row of the tile in the slide's grid, as the format or the card says", "not a tile"),
    Column("tile_column", pa.int32(), "column of the tile in the slide's grid, as the format or the card says", "not a tile"),
    Column("tile_mpp", pa.float64(), "micrometres a pixel of the tile", "not a tile, or not in the file"),
    Column("position_x", pa.float64(), "image position (patient), mm", "not in the file"),
    Column("position_y", pa.float64(), "image position (patient), mm", "not in the file"),
    Column("position_z", pa.float64(), "image position (patient), mm", "not in the file"),
    Column("orientation", pa.list_(pa.float64()), "direction cosines of a row, then of a column (LPS)", "not in the file"),
    Column("affine", pa.list_(pa.float64()), "volumes: first three rows of the affine, (i, j, k, 1) to mm (RAS)", "not a volume"),
    Column("laterality", pa.string(), "L, R, B (both) or U (unpaired)", "not in the file"),
    Column("view", pa.string(), "view position, DICOM's code", "not in the file or not a known code"),
    Column("modality", pa.string(), "DICOM modality, the card's where the file has none"),
    Column("vendor", pa.string(), "one of a closed list", "not in the file"),
    Column("rows", pa.int32(), "height as acquired, px"),
    Column("columns", pa.int32(), "width as acquired, px"),
    Column("depth", pa.int32(), "slices of a volume", "not a volume"),
    Column("channels", pa.int32(), "1 (grey) or 3 (RGB)"),
    Column("spacing_row", pa.float64(), "distance between rows, mm", "not in the file"),
    Column("spacing_column", pa.float64(), "distance between columns, mm", "not in the file"),
    Column("spacing_slice", pa.float64(), "distance between slices, mm", "neither a volume nor cut from one"),
    Column("spacing_kind", pa.string(), "pixel (in the patient) or imager (at the detector)", "no spacing in the file"),
    Column("slope", pa.float64(), "units = slope x value in the file + intercept"),
    Column("intercept", pa.float64(), "see slope; units are HU for CT, else the vendor's"),
    Column("full_low", pa.float64(), "least value that the bit depth can hold, units"),
    Column("full_high", pa.float64(), "greatest value that the bit depth can hold, units"),
    Column("window_center", pa.float64(), "centre of the file's first window, units", "the file has no window"),
    Column("window_width", pa.float64(), "width of the file's first window, units", "the file has no window"),
    Column("window_function", pa.string(), "linear, linear_exact, sigmoid or lut (PS3.3 C.11.2.1)", "the file has no window"),
    Column("lut", pa.int32(), "row of luts.npy: a VOI LUT over the window's range", "no VOI LUT is used"),
    Column("modality_lut", pa.bool_(), "units are the output of the file's Modality LUT"),
    Column("inverted", pa.bool_(), "high units are dark (MONOCHROME1 or an inverse presentation LUT)"),
    Column("padding", pa.float64(), "share of the pixels that were padding and are shown dark"),
    Column(
        "p00_5",
        pa.float64(),
        "percentile 0.5 of the image's units; of up to 65,536 pixels on a regular grid, as the other percentiles",
    ),
    Column("p01", pa.float64(), "percentile 1 of the image's units"),
    Column("p50", pa.float64(), "median of the image's units"),
    Column("p99", pa.float64(), "percentile 99 of the image's units"),
    Column("p99_5", pa.float64(), "percentile 99.5 of the image's units"),
    Column("syntax", pa.string(), "transfer syntax, or the file format of a raster"),
    Column("decoder", pa.string(), "library and version that decoded the pixels"),
    Column("burned_in", pa.bool_(), "the file says that text is burned into the pixels", "the file does not say"),
    Column("flags", pa.string(), "burned_in, secondary_capture, ultrasound: pixels that never go to a tracker", "none"),
    Column("study_year", pa.int32(), "year of the study", "no date in the file"),
    Column("days_since_first", pa.int32(), "days since the patient's first study in this data set", "no date in the file"),
    Column("age", pa.int32(), "age in whole years; 90 stands for 90 and over", "not in the file"),
    Column("sex", pa.string(), "F, M or O", "not in the file"),
    Column(
        "official_split",
        pa.string(),
        "train, validation or test as published",
        "the card has none, or it does not name the image",
    ),
    Column("exact_hash", pa.string(), "SHA-256 of shape and decoded values: equal for pixel-identical images"),
    Column("perceptual_hash", pa.string(), "256 bits in hex: near for near-identical images", "a volume"),
    Column("store_shard", pa.int32(), "shard of the pixel store"),
    Column("store_row", pa.int64(), "row in the shard; of a volume its first voxel"),
    Column("store_slope", pa.float64(), "units = store_slope x value in the store + store_intercept"),
    Column("store_intercept", pa.float64(), "see store_slope"),
    Column("mask_shard", pa.int32(), "shard of the label map", "no label map"),
    Column("mask_row", pa.int64(), "as store_row", "no label map"),
    Column("box_y0", pa.int32(), "first valid row in the store's square"),
    Column("box_x0", pa.int32(), "first valid column in the store's square"),
    Column("box_y1", pa.int32(), "row after the last valid one"),
    Column("box_x1", pa.int32(), "column after the last valid one"),
)
REJECT_COLUMNS = (
    Column("row_key", pa.string(), "key of the file, or of the block of rows"),
    Column("source", pa.string(), "name of the data set in the study file"),
    Column("reason", pa.string(), "one of medssl.data.formats.REASONS"),
    Column("detail", pa.string(), "more about it, without identifiers"),
)
SPLIT_COLUMNS = (
    Column("row_key", pa.string(), "the manifest's"),
    Column("source", pa.string(), "the manifest's"),
    Column("patient", pa.string(), "the manifest's"),
    Column("study", pa.string(), "the manifest's", "the format has no studies"),
    Column("group", pa.int32(), "patients that share a study or an image are one group and never divided"),
    Column("split", pa.string(), "train, validation, test, removed (of the task's data) or archive (of the other data sets)"),
    Column(
        "label",
        pa.float64(),
        "for the study's task: binary 1 positive, 0 negative; multiclass, ordinal the number of the class, from 0; regression the value; "
        "multilabel 1 where any known target is positive, else 0, and each target in a column label.<target> of its own",
        "unknown, or not the task's data",
    ),
    Column("leaks", pa.bool_(), "on both sides of an official split, which the study allows (collisions: allow)"),
    Column("pretrain", pa.bool_(), "pretraining may see the image"),
    Column(
        "excluded",
        pa.string(),
        "held_out_patient, identical_to_held_out, near_held_out or linked_to_held_out",
        "pretraining may see the image",
    ),
)
LABEL_PREFIX = "label."
SPLITTING = ("row_key", "source", "patient", "study", "exact_hash", "official_split")
"""Columns that `splits.make_splits` looks at, with the task's labels and the column of a held-out split."""
LIKENESS = (
    "patient", "exact_hash", "perceptual_hash", "store_shard", "store_row", "store_slope", "inverted",
    "box_y0", "box_x0", "box_y1", "box_x1",
)  # fmt: skip
"""Columns that `near.near_images` looks at."""


def schema_of(columns: tuple[Column, ...], targets: list[str] = (), label: pa.DataType = pa.string()) -> pa.Schema:
    """The Arrow schema of a table; a manifest has a column `label.<target>` for each target of its cards besides, as text, and the
    splits of a multilabel task one for each of its targets, as float64 (0, 1, empty)."""
    labels = [pa.field(f"{LABEL_PREFIX}{target}", label) for target in sorted(targets)]
    return pa.schema([pa.field(column.name, column.type) for column in columns] + labels)


def write_table(path: Path, frame: pd.DataFrame, schema: pa.Schema, metadata: dict[str, str] | None = None) -> None:
    """Write `frame` as Parquet with exactly the columns of `schema`, and `metadata` in the file's header."""
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet table that medssl wrote, or some of its columns.

    Raises:
        StoreError: it is missing or not Parquet.
    """
    try:
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
    except FileNotFoundError:
        raise StoreError(f"{path.name}: is missing in the work folder; run `medssl index` again") from None
    except (pa.ArrowInvalid, OSError) as problem:
        raise StoreError(f"{path.name}: cannot be read ({type(problem).__name__}); run `medssl index --fresh`") from problem


def targets_of(manifest: pd.DataFrame) -> list[str]:
    """The targets that a manifest has labels for."""
    return [name.removeprefix(LABEL_PREFIX) for name in manifest.columns if name.startswith(LABEL_PREFIX)]
