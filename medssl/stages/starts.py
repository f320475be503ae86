"""Where an arm's initialisation lies: a word, a path, or an artifact of MLflow that is fetched once a command."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from medssl.files import digest_of, sha256_of_file
from medssl.models.encoder_file import CARD_NAME, WEIGHTS_NAME
from medssl.models.state_dict import weights_at
from medssl.models.weights import IMAGENET, RANDOM, STATISTICS, InitRecord, sha256_of_init
from medssl.stages.workspace import Workspace
from medssl.tracking.artifacts import fetch, is_remote
from medssl.tracking.mlflow_store import Store

WORDS = (RANDOM, IMAGENET, STATISTICS)
FOLDER = "fetched"  # below the work folder: artifacts by the digest of their weights


@dataclass(frozen=True)
class Start:
    """What an arm's `init` came to.

    Attributes:
        init: as `medssl.models.weights.initialise` takes it.
        sha256: of the weights (hex) at a path or in MLflow; None for the words, whose weights the library or the seed gives.
        remote: where in MLflow it was, for people; None for all else.
    """

    init: str | Path
    sha256: str | None = None
    remote: str | None = None

    def shown(self, record: InitRecord) -> InitRecord:
        """`record` with MLflow's place in its source, where the file came from there."""
        if self.remote is None:
            return record
        kind, _, rest = record.source.partition(": ")
        return dataclasses.replace(record, source=f"{kind}: {self.remote}{rest.removeprefix(Path(self.init).name)}")


def start_of(work: Workspace, arm: str) -> Start:
    """What the `init` of an arm is. MLflow is asked once a command, so that an alias that has moved since is noticed.

    Raises:
        WeightsError: there is nothing to start from at the path or in the artifact.
        TrackingError: MLflow has no such artifact or does not answer.
    """
    init = work.study.arms[arm].init
    if init not in work.starts:
        if init in WORDS:
            work.starts[init] = Start(init)
        elif is_remote(init):
            work.starts[init] = _fetched(work, init)
        else:
            path = Path(init)
            if path.name in (CARD_NAME, WEIGHTS_NAME) and (path.parent / CARD_NAME).is_file():
                path = path.parent
            work.starts[init] = Start(path, sha256_of_init(path))
    return work.starts[init]


def _fetched(work: Workspace, uri: str) -> Start:
    """Fetch an artifact into the work folder; only the encoder's two files or the one weights file stay."""
    base = work.folder / FOLDER
    base.mkdir(parents=True, exist_ok=True)
    settings = work.tracking_settings()
    with tempfile.TemporaryDirectory(dir=base, prefix=".new-") as temporary:
        place, remote = fetch(uri, Store(settings.store_uri), Path(temporary))
        found = weights_at(place, CARD_NAME)
        digest = sha256_of_init(found)
        files = [found / CARD_NAME, found / WEIGHTS_NAME] if found.is_dir() else [found]
        # Named by its content: several processes may fetch the same at the same time, and the first to come here wins.
        kept = base / digest_of([(file.name, sha256_of_file(file)) for file in files])[:16]
        if not kept.exists():
            box = Path(temporary) / kept.name
            box.mkdir()
            for file in files:
                shutil.copyfile(file, box / file.name)
            try:
                box.rename(kept)
            except OSError:
                if not kept.exists():
                    raise
    return Start(kept if len(files) > 1 else kept / found.name, digest, str(remote))
