"""A trained encoder in a notebook: from a file or an array to features, with the preprocessing that it was trained with."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor, nn

from medssl.augment.evaluate import eval_view
from medssl.data.batches import PixelSource
from medssl.data.formats import READERS, REASONS, Image, Item, ReadOptions, Reject
from medssl.data.formats.raster import MAGIC as RASTER_MAGIC
from medssl.data.reading import describe
from medssl.data.store import LUT_LENGTH, Placed, place
from medssl.errors import CheckpointError, DataError
from medssl.models.encoder import Encoder
from medssl.models.encoder_file import CARD_NAME, EncoderCard, load_encoder_folder
from medssl.models.features import extract_features
from medssl.tracking.artifacts import fetch, is_remote
from medssl.tracking.mlflow_store import Store, prepare_mlflow

DEPTHS = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "int16": (-32768.0, 32767.0)}


class PretrainedEncoder(nn.Module):
    """An encoder and its card (encoder.json).

    As a torch module it maps images (N, 1 or 3, H, W), float32 in [0, 1], to features (N, D); `features` starts from files
    or arrays and does the preprocessing of the card.
    """

    def __init__(self, encoder: Encoder, card: EncoderCard) -> None:
        super().__init__()
        self.encoder, self.card = encoder, card

    @property
    def feature_dim(self) -> int:
        """D, the length of a feature vector."""
        return self.encoder.feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, D) of images (N, 1 or 3, H, W), float32 in [0, 1], already windowed and resized."""
        return self.encoder(images)

    def prepare(self, image: str | Path | np.ndarray) -> Tensor:
        """One image as the encoder sees it: (1, C, input_size, input_size) float32 in [0, 1], C = 3 where it learnt from colour.

        Args:
            image: a DICOM (of several frames the first), PNG, JPEG or TIFF file, or a grey array (H, W): uint8 (shown from 0
                to 255), uint16 or int16 (percentiles 0.5 to 99.5 are shown; int16 by the window in HU that the encoder was
                trained with, if it was), or floats in [0, 1]. High values are bright.

        Raises:
            DataError: the file cannot be read, or the array is none of these.
        """
        found = _from_array(image) if isinstance(image, np.ndarray) else self._from_file(Path(image))
        size = self.card.preprocessing.store_size
        placed = place(found.pixels, found.slope, found.intercept, size)
        # Arrays carry no header: int16 ones are taken for Hounsfield units where the encoder learnt from a CT window.
        modality = "CT" if isinstance(image, np.ndarray) and image.dtype == np.int16 else found.header.modality
        row = describe(found) | {
            "modality": modality,
            "store_shard": 0,
            "store_row": 0,
            "store_slope": placed.slope,
            "store_intercept": placed.intercept,
            "lut": None if found.voi_lut is None else 0,
        }
        row |= dict(zip(("box_y0", "box_x0", "box_y1", "box_x1"), placed.box, strict=True))
        manifest = pd.DataFrame([row]).astype({"window_center": float, "window_width": float, "window_function": object})
        source = PixelSource(_OneImage(placed, found.voi_lut), manifest, np.zeros(1, np.int64), self.card.preprocessing.window)
        return eval_view(source.batch(np.zeros(1, np.int64)), self.card.input_size)

    def _from_file(self, path: Path) -> Image:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
        with path.open("rb") as file:
            is_raster = file.read(8).startswith(RASTER_MAGIC)
        known = self.card.preprocessing
        options = ReadOptions(channels=known.channels, window=known.file_window)
        found = next(READERS["raster" if is_raster else "dicom"].read(path.parent, Item(path.name), (), options))
        if isinstance(found, Reject):
            raise DataError(f"{path}: cannot be read: {found.reason} ({found.detail or REASONS[found.reason]})")
        return found

    def features(self, images: str | Path | np.ndarray | Sequence[str | Path | np.ndarray]) -> np.ndarray:
        """(N, D) float32 features of one image or several; see `prepare`. The encoder does not change.

        Raises:
            DataError: see `prepare`.
        """
        many = images if isinstance(images, list | tuple) else [images]
        device = self.encoder.mean.device
        return extract_features(self.encoder, (self.prepare(image).to(device) for image in many))


class _OneImage:
    """Stands in for the store: one image."""

    def __init__(self, placed: Placed, voi_lut: np.ndarray | None) -> None:
        self._pixels = placed.pixels
        self.luts = np.zeros((0, LUT_LENGTH), np.uint16) if voi_lut is None else voi_lut[None]

    def read(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self._pixels[None]


def load_encoder(place: str | Path, *, device: str = "cpu") -> PretrainedEncoder:
    """Load an encoder that medssl trained.

    Args:
        place: the folder that holds encoder.json, or in the MLflow store that MLFLOW_TRACKING_URI names `runs:/RUN_ID/encoder`
            or a registered `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        device: where to put it.

    Raises:
        CheckpointError: there is none, or its files do not belong together.
    """
    if is_remote(str(place)) or str(place).startswith("mlflow-artifacts:/"):
        with tempfile.TemporaryDirectory() as temporary:
            return _load(_download(str(place), Path(temporary)), device)
    return _load(Path(place), device)


def _load(folder: Path, device: str) -> PretrainedEncoder:
    if folder.name == CARD_NAME:
        folder = folder.parent
    if not (folder / CARD_NAME).exists() and (folder / "encoder" / CARD_NAME).exists():
        folder = folder / "encoder"
    encoder, card = load_encoder_folder(folder)
    return PretrainedEncoder(encoder, card).to(device).eval()


def _download(uri: str, folder: Path) -> Path:
    prepare_mlflow()
    import mlflow

    try:
        if is_remote(uri):
            return fetch(uri, Store(mlflow.get_tracking_uri()), folder)[0]
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except Exception as problem:  # trackers and stores raise kinds of their own; all mean the same here
        raise CheckpointError(
            f"{uri}: cannot be fetched ({type(problem).__name__}); set MLFLOW_TRACKING_URI to the store that has it"
        ) from problem


def _from_array(array: np.ndarray) -> Image:
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"expected one grey image (H, W), got an array of shape {array.shape}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise DataError("a float array must be finite and in [0, 1]; pass uint8, uint16 or int16 for stored values")
        return Image(
            np.rint(array * 65535).astype(np.uint16),
            slope=1 / 65535,
            window=(0.5, 1.0),
            window_function="linear_exact",
            full_range=(0.0, 1.0),
        )
    if array.dtype.name not in DEPTHS:
        raise DataError(f"an array of {array.dtype} is not read; pass uint8, uint16, int16, or floats in [0, 1]")
    return Image(array, full_range=DEPTHS[array.dtype.name])
