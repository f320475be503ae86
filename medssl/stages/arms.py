"""The encoder of each arm as fine-tuning gets it, and its features of the labelled images."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssl.augment.evaluate import eval_view
from medssl.data.archive import Archive
from medssl.files import replacing
from medssl.models.encoder import Encoder
from medssl.models.encoder_file import load_encoder_folder
from medssl.models.features import extract_features, recalibrate_batch_norm
from medssl.stages.encoders import initial_encoder, tell_arm, tell_start
from medssl.stages.pretrain import encoder_folder, pretrain_facts
from medssl.stages.pretrain_arm import run_name
from medssl.stages.receipt import is_made_from, write_receipt
from medssl.stages.screen import bar, say
from medssl.stages.workspace import Workspace
from medssl.tracking.locks import locked

BATCH = 128
FEATURES = "features.npy"


@dataclass
class ArmEncoder:
    """An arm's encoder with the BatchNorm policy of the study applied."""

    arm: str
    encoder: Encoder
    source: str  # where its weights come from, for the report
    sha256: str  # of all its tensors
    run: int = 0  # which pretraining run of the arm
    saw: str = ""  # whether the weights it began with may have seen the test patients, for the report

    @property
    def name(self) -> str:
        """Of the arm and its run, as of a folder."""
        return run_name(self.arm, self.run)

    def copy(self) -> Encoder:
        """The same encoder again, to be trained."""
        return copy.deepcopy(self.encoder)


def load_arm(work: Workspace, archive: Archive, arm: str, run: int, device: torch.device) -> ArmEncoder:
    """The encoder of an arm: what its pretraining run `run` (from 0) came to, or what it starts from.

    What was loaded is said, once a command; a warning where its weights may have seen the test patients.

    Raises:
        CheckpointError, WeightsError, TrackingError: the weights are not there or do not fit.
    """
    if work.study.arms[arm].method:
        encoder, card = load_encoder_folder(encoder_folder(work, arm, run))
        source = f"{card.method.name} from {card.init.source}, {card.epochs} epochs"
        tensors = len(encoder.backbone.state_dict())
        tell_arm(work, run_name(arm, run), f"{tensors} matched, 0 missing, 0 unexpected, from {source}")
        saw = pretrain_facts(work, arm, run).get("init_saw_sentence", "")
    else:
        encoder, init = initial_encoder(work, arm, run)
        source, saw = init.source, tell_start(work, archive, arm, init).sentence
    encoder.to(device).eval()
    if work.study.encoder.batch_norm == "recalibrated":
        recalibrate_batch_norm(encoder, _images(work, archive, _training_rows(work, archive), device))
    return ArmEncoder(arm, encoder, source, state_digest(encoder), run, saw)


def state_digest(encoder: Encoder) -> str:
    """SHA-256 over the names and values of all tensors: equal for bitwise equal encoders."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def labelled_rows(work: Workspace, archive: Archive) -> np.ndarray:
    """Positions of the task's labelled images of all parts. Which of their labels are read is another matter."""
    rows = archive.rows(source=work.task.data, split=["train", "validation", "test"])
    return rows[archive.splits["label"].iloc[rows].notna().to_numpy()]


class Features:
    """Frozen features of every labelled image, computed once an arm and shared by all budgets and draws."""

    def __init__(self, rows: np.ndarray, values: np.ndarray) -> None:
        """`rows`: rising positions in the manifest; `values`: (len(rows), D), best a memory map."""
        self._rows, self._values = rows, values

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), D) features of positions in the manifest.

        Raises:
            KeyError: one of them is no labelled image.
        """
        place = np.minimum(np.searchsorted(self._rows, rows), len(self._rows) - 1)
        if (self._rows[place] != rows).any():
            raise KeyError("rows without features")
        return self._values[place]


def arm_features(
    work: Workspace, archive: Archive, arm: ArmEncoder, device: torch.device, *, recalibrated: bool = False
) -> Features:
    """Read the arm's features from the work folder, or compute them; of several processes one does, and the others wait for it.

    Args:
        recalibrated: of a copy of the encoder whose BatchNorm statistics are those of the task's training images.
    """
    folder = features_folder(work, arm.arm, arm.run, recalibrated=recalibrated)
    rows, inputs = labelled_rows(work, archive), feature_inputs(work, archive, arm.sha256, recalibrated=recalibrated)
    path = folder / FEATURES
    with locked(folder.with_name(f".{folder.name}.lock"), timeout=math.inf):
        if not has_features(work, archive, arm, recalibrated=recalibrated):
            values = _computed(work, archive, arm, rows, device, recalibrated)
            with replacing(path) as temporary:
                np.save(temporary, values, allow_pickle=False)
            write_receipt(folder, inputs, shape=list(values.shape))
            say("features", f"{arm.arm}: {values.shape[0]:,} images, {values.shape[1]:,} features each")
    return Features(rows, np.load(path, mmap_mode="r", allow_pickle=False))


def features_folder(work: Workspace, arm: str, run: int, *, recalibrated: bool = False) -> Path:
    """Where the features of an arm's pretraining run are kept."""
    return work.folder / "finetune" / "features" / arm / str(run) / ("recalibrated" if recalibrated else "as_is")


def has_features(work: Workspace, archive: Archive, arm: ArmEncoder, *, recalibrated: bool = False) -> bool:
    """Whether the arm's features are there, made from today's inputs."""
    folder = features_folder(work, arm.arm, arm.run, recalibrated=recalibrated)
    inputs = feature_inputs(work, archive, arm.sha256, recalibrated=recalibrated)
    return is_made_from(folder, inputs) and (folder / FEATURES).exists()


def _computed(
    work: Workspace, archive: Archive, arm: ArmEncoder, rows: np.ndarray, device: torch.device, recalibrated: bool
) -> np.ndarray:
    encoder = arm.encoder
    if recalibrated:
        encoder = arm.copy()
        recalibrate_batch_norm(encoder, _images(work, archive, _training_rows(work, archive), device))
    with bar(f"features {arm.arm}", len(rows)) as progress:
        return extract_features(encoder, _images(work, archive, rows, device), advance=progress.advance)


def feature_inputs(work: Workspace, archive: Archive, sha256: str, *, recalibrated: bool = False) -> dict[str, Any]:
    """What the features of an encoder with this digest depend on."""
    settings = work.study.encoder
    return {
        "encoder": sha256,
        "batch_norm": "recalibrated on the training images" if recalibrated else "of the encoder",
        "data": archive.data_digest,
        "splits": archive.summary["splits"]["digest"],
        "labels": archive.summary["labels_digest"],  # decides which images are labelled
        "task": work.task.model_dump(mode="json"),
        "input_size": settings.input_size,
        "window": settings.window,
    }


def _training_rows(work: Workspace, archive: Archive) -> np.ndarray:
    return archive.rows(source=work.task.data, split="train")


def _images(work: Workspace, archive: Archive, rows: np.ndarray, device: torch.device) -> Iterator[torch.Tensor]:
    source = archive.pixels(rows, work.study.encoder.window)
    return (eval_view(batch.to(device), work.study.encoder.input_size) for batch in source.batches(BATCH))
