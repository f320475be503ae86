"""Studies small enough for a test: a phantom archive and a clinic of 40 patients each, 32 px, everything real."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="session")
def clinics() -> ModuleType:
    """The module clinic.py beside this file: pytest's importlib mode does not let a test import what stands beside it."""
    spec = importlib.util.spec_from_file_location("medssl_tests_clinic", Path(__file__).with_name("clinic.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def clinic(clinics, tmp_path_factory) -> Path:
    """The folder of the clinic, to be read and copied, never changed."""
    root = tmp_path_factory.mktemp("clinic")
    clinics.generate(root)
    return root


@pytest.fixture
def study(tmp_path, clinics, clinic, write_study):
    """study(task, root=...): a workspace on the clinic; without a kind the task is the clinic's own but for what is given."""

    def make(task=(), root=clinic, data=(), **more):
        from medssl.stages.workspace import open_workspace

        (tmp_path / "card.yaml").write_text(yaml.safe_dump(clinics.CARD, sort_keys=False))
        task = dict(task) if "kind" in dict(task) else clinics.TASK | dict(task)
        sources = {"clinic": {"card": "card.yaml", "root": str(root)}, **dict(data)}
        path = write_study(tmp_path, data=sources, task=task, tracking={"enabled": False}, **more)
        return open_workspace(path)

    return make
