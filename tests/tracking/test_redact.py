from __future__ import annotations

import pytest
import yaml

from medssl.errors import TrackingError
from medssl.tracking import TrackingSettings, redact_study
from medssl.tracking.settings import without_credentials

STUDY = {
    "data": {"nih": {"card": "nih", "root": "archive/mueller_hans"}, "own": {"card": "own", "root": "/mnt/pacs"}},
    "work_dir": "work/mueller",
    "privacy": {"secret_file": "keys/secret"},
    "arms": {"a": {"init": "/home/mueller/w.pt"}, "b": {"init": "imagenet"}},
    "tracking": {"uri": "https://user:pass@host:5000/x?token=1"},
    "pretrain": {"lr": 0.1, "sources": ["nih"]},
}


def test_no_place_and_no_password_is_left():
    before = yaml.safe_dump(STUDY)
    redacted = redact_study(STUDY)
    text = yaml.safe_dump(redacted)
    assert yaml.safe_dump(STUDY) == before
    for secret in ("mueller", "pacs", "keys", "pass", "token"):
        assert secret not in text
    assert redacted["pretrain"] == STUDY["pretrain"]
    assert redacted["arms"]["b"] == {"init": "imagenet"}
    assert redacted["data"]["nih"] == {"card": "nih", "root": "<local>"}
    assert redact_study({"tracking": {"uri": "sqlite:////home/x/m.db"}, "privacy": None})["tracking"]["uri"] == (
        "sqlite:///<local>"
    )


def test_credentials_are_not_shown():
    assert without_credentials("https://u:p@h:5000/a") == "https://h:5000/a"
    assert without_credentials("http://h:5000") == "http://h:5000"


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "/tmp/mlruns", "", "sqlite:///", "ftp://host/x", "http"])
def test_stores_that_mlflow_does_not_write_are_refused(tmp_path, uri):
    with pytest.raises(TrackingError, match=r"tracking\.uri"):
        TrackingSettings(uri, "e", tmp_path)


def test_default_store_is_in_the_work_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = TrackingSettings(None, "e", tmp_path / "w")
    assert settings.store_uri == f"sqlite:///{tmp_path}/w/mlflow.db"
    assert settings.artifact_location == (tmp_path / "w" / "mlartifacts").as_uri()
    assert TrackingSettings("sqlite:///x.db", "e", tmp_path).store_uri == f"sqlite:///{tmp_path}/x.db"
    assert TrackingSettings("http://h:1", "e", tmp_path).artifact_location is None
    with pytest.raises(TrackingError, match="'%'"):
        TrackingSettings(None, "e", tmp_path / "50%")
