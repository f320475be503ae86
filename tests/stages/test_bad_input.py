"""Bad input gets one line and exit code 2, and nothing that was written before is harmed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CARDS = Path(__file__).parents[2] / "data_cards"
LOCAL = ["--set", "tracking.enabled=false"]


def run(stage: str, study: Path, *more: str, limit: int | None = None) -> subprocess.CompletedProcess:
    """A command as a user gives it; `limit`: no file may grow beyond so many bytes, as on a disk that fills up."""
    code = "import resource, sys; "
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); " if limit else ""
    code += "from medssl.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, stage, "-c", str(study), *LOCAL, *more], capture_output=True, text=True)


def assert_one_line(done: subprocess.CompletedProcess, text: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert text in done.stderr


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def phantom_copy(tmp_path, phantom_root) -> Path:
    shutil.copytree(phantom_root, tmp_path / "archive")
    return tmp_path / "archive"


@pytest.fixture
def own_card(tmp_path):
    """own_card(**changes): writes the phantom's card with changes beside the study and returns what names it."""

    def write(**changes) -> str:
        card = yaml.safe_load((CARDS / "phantom_cxr.yaml").read_text()) | changes
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card))
        return "mine.yaml"

    return write


def test_a_missing_folder(tmp_path, write_study):
    study = write_study(tmp_path, data={"archive": {"card": "phantom_cxr", "root": str(tmp_path / "none")}})
    assert_one_line(run("index", study), "data.archive: there is no folder")


def test_an_empty_archive(tmp_path, write_study):
    (tmp_path / "empty").mkdir()
    study = write_study(tmp_path, data={"archive": {"card": "phantom_cxr", "root": str(tmp_path / "empty")}})
    assert_one_line(run("index", study), "data.archive: no file below the root matches files.include of the card phantom_cxr")


def test_an_archive_of_broken_files(tmp_path, write_study):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "labels.csv").write_text("file,opacity\n")
    for number in range(3):
        (tmp_path / "broken" / f"{number}.dcm").write_text("<html>")
    study = write_study(tmp_path, data={"archive": {"card": "phantom_cxr", "root": str(tmp_path / "broken")}})
    assert_one_line(run("index", study), "archive: the archive holds no image that can be read (3 not_dicom)")


def test_a_labels_file_without_the_column(tmp_path, write_study, phantom_copy):
    labels = phantom_copy / "labels.csv"
    labels.write_text(labels.read_text().replace("file,opacity", "file,finding"))
    study = write_study(tmp_path, data={"archive": {"card": "phantom_cxr", "root": str(phantom_copy)}})
    assert_one_line(run("index", study), "phantom_cxr: labels.csv has no column 'opacity'; it has: file, finding")


def test_a_label_that_is_not_in_the_card(tmp_path, write_study, phantom_copy):
    labels = phantom_copy / "labels.csv"
    labels.write_text(labels.read_text().replace(",present", ",maybe"))
    study = write_study(tmp_path, data={"archive": {"card": "phantom_cxr", "root": str(phantom_copy)}})
    assert_one_line(
        run("index", study), "phantom_cxr: targets.opacity: the label 'maybe' is not in the card, which knows: absent, present"
    )


def test_a_class_with_too_few_patients(tmp_path, write_study, phantom_copy):
    labels = phantom_copy / "labels.csv"
    lines = labels.read_text().splitlines()
    positive = [line for line in lines if line.endswith(",present")]
    labels.write_text("\n".join([line for line in lines if not line.endswith(",present")] + positive[:1]) + "\n")
    study = write_study(tmp_path, data={"archive": {"card": "phantom_cxr", "root": str(phantom_copy)}})
    assert_one_line(run("index", study), "task: the class 'present' has 1 patients in archive, too few to divide")


def test_a_study_of_another_version(tmp_path, write_study):
    assert_one_line(run("index", write_study(tmp_path, version=3)), "version: is 3, this medssl reads version 1")


def test_a_target_that_the_card_has_not(tmp_path, write_study):
    study = write_study(tmp_path)
    done = run("index", study, "--set", "task.target=opacty")
    assert_one_line(done, "task.target: is 'opacty'; did you mean 'opacity'?; the card phantom_cxr has: opacity")
    assert_one_line(run("index", study, "--set", "task.positive=yes"), "task.positive: is True")


def test_a_disk_that_fills_up_harms_nothing(tmp_path, write_study):
    study = write_study(tmp_path)
    assert run("index", study).returncode == 0
    before = content(tmp_path / "work" / "archive") | content(tmp_path / "work" / "splits")
    full = run("index", study, "--fresh", "--set", "store.size=512", limit=3_000_000)
    assert_one_line(full, "could not be written (File too large); what stood there before is unharmed")
    assert content(tmp_path / "work" / "archive") | content(tmp_path / "work" / "splits") == before
    again = run("index", study)
    assert again.returncode == 0
    assert "index nothing has changed" in again.stdout


def test_a_budget_larger_than_the_pool_is_said_before_any_fit(tmp_path, write_study):
    study = write_study(tmp_path, arms={"imagenet": {"init": "imagenet"}})
    done = run("finetune", study, "--set", "finetune.budgets=[500]")
    assert_one_line(done, "finetune.budgets: 500 patients are asked for")
    assert not (tmp_path / "work" / "finetune").exists()


def test_an_arm_that_is_no_arm(tmp_path, write_study):
    assert_one_line(
        run("finetune", write_study(tmp_path), "--arm", "imagnet"),
        "--arm imagnet: is no arm of the study; did you mean 'imagenet'?",
    )


def test_weights_that_do_not_fit(tmp_path, write_study):
    study = write_study(tmp_path, arms={"imagenet": {"init": "imagenet"}, "mine": {"init": str(tmp_path / "none.pth")}})
    assert_one_line(run("finetune", study, "--arm", "mine"), "none.pth: is neither a folder with encoder.json nor a weights file")


def test_batches_larger_than_the_archive(tmp_path, write_study):
    done = run("pretrain", write_study(tmp_path), "--set", "pretrain.batch_size=4096")
    assert_one_line(done, "images, fewer than one batch of 4096; lower pretrain.batch_size")


def test_a_tracker_that_is_no_store(tmp_path, write_study):
    study = write_study(tmp_path)
    code = "from medssl.cli import main; main()"
    wrong = ["index", "-c", str(study), "--set", "tracking.uri=file:///mlruns"]
    assert_one_line(subprocess.run([sys.executable, "-c", code, *wrong], capture_output=True, text=True), "tracking.uri:")
