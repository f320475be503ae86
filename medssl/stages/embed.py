"""embed: the features of a data set by an encoder, as Parquet."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medssl.augment.evaluate import eval_view
from medssl.errors import StudyError
from medssl.files import replacing
from medssl.models.features import extract_features
from medssl.pretrained import load_encoder
from medssl.stages.devices import choose_device
from medssl.stages.index import index
from medssl.stages.screen import bar, say, warn
from medssl.stages.workspace import Workspace
from medssl.strict import near_miss


def embed(work: Workspace, encoder: str, *, data: str | None = None, out: Path | None = None) -> Path:
    """Write row_key, patient, split and features (a list of D floats) of every image of a data set; returns the path.

    Raises:
        StudyError: the study has no such data set.
        CheckpointError: there is no such encoder.
    """
    name, known = data or (work.study.task.data if work.study.task else min(work.study.data)), list(work.study.data)
    if name not in known:
        raise StudyError(f"--data {name}: is no data set of the study{near_miss(name, known)}; allowed: {', '.join(known)}")
    device = choose_device(work.study)
    pretrained = load_encoder(encoder, device=str(device))
    archive, card = index(work), pretrained.card
    if card.preprocessing.store_size != work.study.store_size:
        warn(
            f"embed: the encoder was trained from a store of {card.preprocessing.store_size} px, this study's has {work.study.store_size} px"
        )
    rows = archive.rows(source=name)
    source = archive.pixels(rows, card.preprocessing.window)
    with bar(f"embed {name}", len(rows)) as progress:
        images = (eval_view(batch.to(device), card.input_size) for batch in source.batches(128))
        features = extract_features(pretrained.encoder, images, advance=progress.advance)
    part = archive.splits.iloc[rows]
    table = pa.table(
        {
            "row_key": part["row_key"].to_numpy(),
            "patient": part["patient"].to_numpy(),
            "split": part["split"].to_numpy(),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1]),
        },
        metadata={"medssl.encoder": card.weights_sha256 or "", "medssl.data": archive.data_digest},
    )
    path = out or work.folder / "embed" / f"{name}.parquet"
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    say("embed", f"{len(rows):,} images, {features.shape[1]:,} features each, in {path}")
    return path
