"""A study small enough for a test: a phantom archive of 40 patients, 32 px, everything real."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
PATIENTS = 40


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory) -> Path:
    """A phantom archive, generated once for all tests."""
    from medssl.data.phantom import generate

    root = tmp_path_factory.mktemp("phantom") / "archive"
    generate(root, patients=PATIENTS, size=64, workers=1)
    return root


@pytest.fixture(scope="session")
def write_study(phantom_root):
    """write_study(folder, **top-level keys) -> path of a study file whose work folder is below `folder`."""

    def write(folder: Path, **changes) -> Path:
        study = yaml.safe_load(
            textwrap.dedent(
                f"""
                version: 1
                name: small
                work_dir: {folder / "work"}
                data: {{archive: {{card: phantom_cxr, root: {phantom_root}}}}}
                store: {{workers: 1}}
                encoder: {{backbone: timm/tf_efficientnet_lite0, input_size: 32}}
                task: {{kind: binary, data: archive, target: opacity, positive: present, split: {{validation: 0.2, test: 0.3}}}}
                pretrain:
                  method: {{name: simsiam, projector_dim: 32, projector_hidden: 32}}
                  epochs: 2
                  batch_size: 16
                  log_every_steps: 1
                  knn_images: 16
                finetune:
                  budgets: [8, all]
                  seeds: 2
                  linear: {{regularization: [0.01, 1.0]}}
                  full: {{budgets: [8], seeds: 1, epochs: 1}}
                evaluate: {{replicates: 200}}
                """
            )
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump(study | changes, sort_keys=False))
        return path

    return write
