"""`medssl views` and what pretraining says of its views, as a user meets them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medssl.cli import app
from medssl.errors import DataError, StudyError
from medssl.stages.views import views
from medssl.stages.workspace import open_workspace
from medssl.tracking import lines


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
    with pytest.raises(StudyError, match="--of pretrian: allowed: pretrain, finetune"):
        views(opened(write_study, tmp_path), tmp_path / "v.png", of="pretrian")
