"""index as a user has it: only what is new is read, a kill costs little, many processes share the work, nothing differs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image as PillowImage
from typer.testing import CliRunner

from medssl.cli import app
from medssl.data.archive import MANIFEST, REJECTS
from medssl.data.card import find_card
from medssl.data.store import Store
from medssl.stages.index import index
from medssl.stages.workspace import open_workspace
from medssl.tracking.locks import locked

CARD = {
    "version": 1, "name": "many", "title": "t", "source": "s", "licence": "l", "citation": "c", "obtain": "o",
    "modality": "CR", "format": "raster", "patient": [{"pattern": r"(?P<value>p\d+)_"}],
    "targets": {"finding": {"description": "d", "classes": {"no": ["even"], "yes": ["odd"]}, "source": [{"pattern": "(?P<value>even|odd)"}]}},
}  # fmt: skip
FILES = 30


def write(root, number: int, seed: int | None = None) -> None:
    pixels = np.random.default_rng(number if seed is None else seed).integers(0, 255, (40, 30)).astype(np.uint8)
    PillowImage.fromarray(pixels).save(root / f"p{number:03}_{'odd' if number % 2 else 'even'}.png")


@pytest.fixture
def study(tmp_path):
    """(study file, folder of images)."""
    root = tmp_path / "images"
    root.mkdir()
    for number in range(FILES):
        write(root, number)
    (root / "p999_even.png").write_text("<html>not found</html>")
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD))
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "name": "small",
                "work_dir": str(tmp_path / "work"),
                "data": {"many": {"card": "card.yaml", "root": str(root)}},
                "store": {"size": 32, "workers": 2},
                "encoder": {"input_size": 28},
                "tracking": {"enabled": False},
            }
        )
    )
    return tmp_path / "study.yaml", root


def run(study_file, *arguments: str):
    result = CliRunner().invoke(app, ["index", "--config", str(study_file), *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def archive(study_file) -> pd.DataFrame:
    """The manifest with the pixels themselves in place of where they stand."""
    folder = study_file.parent / "work" / "archive"
    manifest, store = pd.read_parquet(folder / MANIFEST), Store(folder / "store")
    pixels = store.read(manifest["store_shard"].to_numpy(), manifest["store_row"].to_numpy())
    manifest["pixels"] = [image.tobytes() for image in pixels]
    return manifest.drop(columns=["store_shard", "store_row"])


def test_only_new_and_changed_files_are_read(study):
    study_file, root = study
    first = run(study_file)
    assert "30 images of 30 patients" in first
    assert "1 files set aside: 1 not_raster" in first
    assert "nothing has changed: 30 images of 30 patients" in run(study_file)
    before = archive(study_file)
    write(root, 100)
    write(root, 3, seed=77)
    (root / "p004_even.png").unlink()
    again = run(study_file)
    assert "29 of 31 are known and unchanged, 2 are read" in again
    after = archive(study_file)
    assert len(after) == 30
    kept = after["row_key"].isin(before["row_key"]) & after["exact_hash"].isin(before["exact_hash"])
    assert kept.sum() == 28
    same = before[before["row_key"].isin(after.loc[kept, "row_key"])]
    pd.testing.assert_frame_equal(after[kept].reset_index(drop=True), same.reset_index(drop=True))
    # As if it had been read at one go.
    shutil.copytree(study_file.parent / "work" / "private", study_file.parent / "kept")
    shutil.rmtree(study_file.parent / "work")
    (study_file.parent / "work" / "private").mkdir(parents=True)
    shutil.copy(study_file.parent / "kept" / "secret", study_file.parent / "work" / "private" / "secret")
    run(study_file)
    pd.testing.assert_frame_equal(archive(study_file), after)


def test_labels_are_changed_without_reading_pixels(study):
    study_file, _ = study
    run(study_file)
    card = yaml.safe_load((study_file.parent / "card.yaml").read_text())
    card["targets"]["finding"]["classes"] = {"absent": ["even"], "present": ["odd"]}
    (study_file.parent / "card.yaml").write_text(yaml.safe_dump(card))
    segments = sorted((study_file.parent / "work" / "private" / "segments").iterdir())
    run(study_file)
    assert set(archive(study_file)["label.finding"]) == {"absent", "present"}
    assert sorted((study_file.parent / "work" / "private" / "segments").iterdir()) == segments


def test_a_changed_table_of_labels_is_seen(study):
    study_file, root = study
    card = yaml.safe_load((study_file.parent / "card.yaml").read_text())
    card["targets"]["finding"]["source"] = [{"csv": "labels.csv", "key": "file", "column": "finding"}]
    (study_file.parent / "card.yaml").write_text(yaml.safe_dump(card))
    names = [path.name for path in sorted(root.glob("p0*.png"))]
    (root / "labels.csv").write_text("file,finding\n" + "".join(f"{name},even\n" for name in names))
    run(study_file)
    assert set(archive(study_file)["label.finding"]) == {"no"}
    assert "nothing has changed" in run(study_file)
    (root / "labels.csv").write_text("file,finding\n" + "".join(f"{name},odd\n" for name in names))
    assert "nothing has changed" not in run(study_file)
    assert set(archive(study_file)["label.finding"]) == {"yes"}


def test_made_up_images_are_not_indexed_anew_by_the_next_command(tmp_path):
    study_file, card = tmp_path / "study.yaml", yaml.safe_load(find_card("phantom_cxr", tmp_path).read_text())
    card["phantom"] |= {"patients": 12, "size": 64}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    study_file.write_text(
        yaml.safe_dump(
            {
                "version": 1, "name": "made_up", "work_dir": str(tmp_path / "work"), "data": {"phantom": {"card": "card.yaml"}},
                "store": {"size": 32}, "encoder": {"input_size": 28}, "tracking": {"enabled": False},
            }
        )
    )  # fmt: skip
    assert "nothing has changed" not in run(study_file)
    assert "nothing has changed" in run(study_file)


def test_only_index_looks_at_very_many_files(study, monkeypatch, capsys):
    study_file, root = study
    monkeypatch.setattr("medssl.stages.index.LOOKED_AT", 20)
    run(study_file)
    made = index(open_workspace(study_file))
    assert "30 images of 30 patients, as indexed on 20" in (said := " ".join(capsys.readouterr().out.split()))
    assert "from 31 files; `medssl index` finds what has changed among them since" in said
    write(root, 100)
    assert index(open_workspace(study_file)).data_digest == made.data_digest
    assert "1 are read" in run(study_file)
    assert len(index(open_workspace(study_file)).manifest) == 31
    # Other settings are never taken for these.
    card = yaml.safe_load((study_file.parent / "card.yaml").read_text())
    card["targets"]["finding"]["classes"] = {"absent": ["even"], "present": ["odd"]}
    (study_file.parent / "card.yaml").write_text(yaml.safe_dump(card))
    capsys.readouterr()
    assert set(index(open_workspace(study_file)).manifest["label.finding"]) == {"absent", "present"}
    assert "as indexed" not in capsys.readouterr().out


def test_two_commands_index_one_after_the_other(study):
    study_file, _ = study
    command = [sys.executable, "-m", "medssl", "index", "--config", str(study_file)]
    (private := study_file.parent / "work" / "private").mkdir(parents=True)
    with locked(private / "index.lock", timeout=1):
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
        for line in both[0].stdout:
            if "another command is indexing" in line:
                break
        else:
            pytest.fail("it did not wait")
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(archive(study_file)) == FILES
    assert len(list((private / "segments").iterdir())) == 1  # the second one read nothing


def test_fresh_reads_everything_again_and_leaves_nothing_behind(study):
    study_file, _ = study
    run(study_file)
    before, pixels = archive(study_file), study_file.parent / "work" / "pixels"
    old = set(pixels.iterdir())
    run(study_file, "--fresh")
    pd.testing.assert_frame_equal(archive(study_file), before)
    assert len(list(pixels.iterdir())) == len(old)
    assert not old & set(pixels.iterdir())


def test_another_size_of_the_store_is_made_without_fresh(study):
    index(open_workspace(study[0]))
    for size in (28, 32):
        archive = index(open_workspace(study[0], [f"store.size={size}"]))
        pixels = archive.pixels(np.arange(len(archive.manifest)), "auto").batch(np.arange(FILES)).pixels
        assert pixels.shape == (FILES, 1, size, size)
        listed = {shard["file"] for shard in archive.store.shards}
        assert listed == {path.name for path in (study[0].parent / "work" / "pixels").glob("*.bin")}


def test_a_killed_index_goes_on_where_it_stopped(study, tmp_path):
    study_file, root = study
    for number in range(FILES, 400):
        write(root, number)
    # Segments of 20 rows, and readers slow enough to be killed in the middle.
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "killed.py").write_text(
        "import sys, time\nimport medssl.data.journal as journal\njournal.ROWS = 20\nadd = journal.SegmentWriter.add\n"
        "def slowly(self, *arguments):\n    time.sleep(0.01)\n    add(self, *arguments)\n"
        "journal.SegmentWriter.add = slowly\nsys.argv = ['medssl', 'index', '--config', sys.argv[1]]\n"
        "from medssl.cli import main\nmain()\n"
    )
    process = subprocess.Popen([sys.executable, str(tmp_path / "slow" / "killed.py"), str(study_file)], stdout=subprocess.DEVNULL)
    segments, end = tmp_path / "work" / "private" / "segments", time.monotonic() + 60
    while len(list(segments.glob("[0-9]*.parquet")) if segments.exists() else []) < 4 and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    output = run(study_file)
    known = int(output.split(" of 401 are known")[0].rsplit(" ", 1)[1])
    assert 80 <= known < 401
    assert "400 images of 400 patients" in output
    assert archive(study_file)["pixels"].nunique() == 400
    assert pd.read_parquet(tmp_path / "work" / "archive" / REJECTS)["reason"].tolist() == ["not_raster"]


def test_shards_make_what_one_process_makes(study):
    study_file, _ = study
    run(study_file)
    alone, work = archive(study_file), study_file.parent / "work"
    secret = (work / "private" / "secret").read_bytes()
    shutil.rmtree(work)
    (work / "private").mkdir(parents=True)
    (work / "private" / "secret").write_bytes(secret)
    assert "part 2 of 3 is read; the archive is made by the last, still to come: 1, 3" in run(study_file, "--shard", "2/3")
    assert not (work / "archive").exists()
    assert "still to come: 1" in run(study_file, "--shard", "3/3")
    assert "30 images of 30 patients" in run(study_file, "--shard", "1/3")
    pd.testing.assert_frame_equal(archive(study_file), alone)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_a_shard_that_cannot_be_is_refused(study, text):
    result = CliRunner().invoke(app, ["index", "--config", str(study[0]), f"--shard={text}"])
    assert "is not of the form k/n" in str(result.exception)
