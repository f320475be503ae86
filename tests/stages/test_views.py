"""`medssl views` and what pretraining says of its views, as a user meets them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medssl.cli import app
from medssl.data.pairs import related_images
from medssl.errors import DataError, StudyError
from medssl.stages.views import views
from medssl.stages.workspace import open_workspace
from medssl.tracking import lines

REPOSITORY = Path(__file__).parents[2]


def opened(write_study, folder, **pretrain):
    settings = {"method": {"name": "simsiam", "projector_dim": 32, "projector_hidden": 32}, "epochs": 1, "batch_size": 16}
    return open_workspace(write_study(folder, pretrain=settings | pretrain))


def test_the_sheet_is_a_picture_of_images_and_views(write_study, tmp_path):
    config = write_study(tmp_path / "study")
    out = tmp_path / "elsewhere" / "sheet.png"
    result = CliRunner().invoke(app, ["views", "--config", str(config), "--out", str(out), "--images", "3", "--views", "2"])
    assert result.exit_code == 0, result.output
    assert "3 images and 2 views of each, policy chest_xray" in " ".join(result.output.split())
    pixels = np.asarray(Image.open(io.BytesIO(out.read_bytes())))
    assert pixels.std() > 20, "a sheet of nothing but paper"
    logged = [event for log in (tmp_path / "study/work/tracking/views").glob("*/events.jsonl") for _, event in lines.read(log)]
    assert [event["pixels"] for event in logged if event.get("path", "").endswith("views_pretrain.png")] == [True]


def test_what_a_policy_leaves_out_is_said_when_switched_on(write_study, tmp_path, capsys):
    work = opened(write_study, tmp_path, views={"policy": "chest_xray", "geometry": {"horizontal_flip": 0.5}})
    views(work, tmp_path / "v.png", images=1, count=1)
    said = " ".join("".join(capsys.readouterr()).split())
    assert "geometry.horizontal_flip is on; chest_xray leaves it out: the heart lies left" in said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policy": "pathology"}, "pathology is for colour images, and archive has grey ones"),
        ({"policy": "mr_volume"}, "mr_volume is for volumes, and archive is indexed as images"),
        ({"policy": "ct_slice"}, "in Hounsfield units, and archive has images that are not CT"),
    ],
)
def test_a_policy_that_does_not_fit_the_archive_is_one_line(write_study, tmp_path, settings, words):
    work = opened(write_study, tmp_path, views=settings)
    with pytest.raises(DataError, match=words) as caught:
        views(work, tmp_path / "v.png")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "v.png").exists()


def test_a_wrong_step_is_one_line(write_study, tmp_path):
    with pytest.raises(StudyError, match="--of pretrian: allowed: pretrain, finetune, pairs"):
        views(opened(write_study, tmp_path), tmp_path / "v.png", of="pretrian")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("positive_pairs: []", "no data card says which images are related; add `positive_pairs` to the card of archive"),
        ("read: {units: volumes}", "views --of pairs: is for images, and archive is indexed as volumes; set `units: slices`"),
    ],
)
def test_pairs_that_cannot_be_shown_are_one_line(write_study, phantom_root, tmp_path, change, words):
    text = (REPOSITORY / "data_cards" / "phantom_cxr.yaml").read_text()
    before, _, after = text.partition("positive_pairs:")
    (tmp_path / "own.yaml").write_text(f"{before}{change}\n{after[after.index('known_faults:') :]}")
    study = write_study(tmp_path, data={"archive": {"card": "own.yaml", "root": str(phantom_root)}})
    with pytest.raises(DataError, match=words) as caught:
        views(open_workspace(study), tmp_path / "v.png", of="pairs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "v.png").exists()


def write_tiles(root):
    """Two slides of a patient, two columns and two rows each, as files; one slide of another patient with one tile."""
    generator = np.random.default_rng(0)
    for slide, tiles in {"p1-a": 4, "p1-b": 4, "p2-a": 1}.items():
        for number in range(tiles):
            root.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(root / f"{slide}_{number}.png")


def test_related_images_are_shown_and_counted_of_tiles_that_the_card_lays_out(write_study, tmp_path, capsys):
    write_tiles(tmp_path / "tiles")
    (tmp_path / "tiles.yaml").write_text(TILES)
    study = write_study(tmp_path, data={"slides": {"card": "tiles.yaml", "root": str(tmp_path / "tiles")}}, task=None)
    work = open_workspace(study)
    out = views(work, tmp_path / "v.png", images=4, count=2, of="pairs")
    said = " ".join("".join(capsys.readouterr()).split())
    assert "4 images and what 2 epochs draw for each" in said
    picture = Image.open(io.BytesIO(out.read_bytes()))
    assert 3 * 184 < picture.width < 4 * 184, "an image and two epochs"
    assert np.asarray(picture).std() > 20, "a sheet of nothing but paper"
    assert "8 of 9 images have a related image (adjacent_tile 8); 1 (11.1%) fall back to a second view" in said
    manifest = work.archive.manifest
    assert manifest["series"].nunique() == 3
    assert manifest["patient"].nunique() == 2
    places = manifest.groupby("series")[["tile_row", "tile_column"]].apply(lambda part: sorted(part.to_numpy().tolist()))
    assert sorted(places.tolist(), key=len)[1:] == [[[0, 0], [0, 1], [1, 0], [1, 1]]] * 2


TILES = """
version: 1
name: tiles
title: tiles of slides
source: made up
licence: none
citation: none
obtain: made by a test
modality: SM
format: raster
read: {channels: rgb}
patient: [{pattern: '(?P<value>p[0-9]+)-'}]
tiles:
  slide: [{pattern: '(?P<value>p[0-9]+-[a-z])_'}]
  index: [{pattern: '_(?P<value>[0-9]+)[.]png$'}]
  columns: 2
positive_pairs: [{kind: adjacent_tile}]
"""


def test_slices_of_a_volume_file_are_a_series(shared_data, write_study, tmp_path):
    root = shared_data / "hippocampus"
    if not root.is_dir():
        pytest.skip("hippocampus is absent; its card says where it comes from")
    for folder in ("images", "labels"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for case in ("001", "003"):
            shutil.copy(root / folder / f"hippocampus_{case}.nii.gz", tmp_path / "set" / folder)
    data = {"mr": {"card": "hippocampus_slices", "root": str(tmp_path / "set")}}
    work = open_workspace(write_study(tmp_path, data=data, task=None))
    views(work, tmp_path / "v.png", of="pairs", count=2)
    manifest = work.archive.manifest
    assert manifest.groupby("series")["patient"].nunique().tolist() == [1, 1]
    assert not manifest.duplicated(["series", "slice"]).any()
    card = work.cards["mr"]
    partners = related_images(manifest, {"mr": card.positive_pairs}).partners(0, 0).numpy()
    slices = manifest["slice"].to_numpy(int)
    assert (manifest["series"].to_numpy()[partners] == manifest["series"].to_numpy()).all()
    assert set(np.abs(slices[partners] - slices)) == {1, 2, 3}
