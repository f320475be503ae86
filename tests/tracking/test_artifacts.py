"""Artifacts of a real SQLite store by runs:/ and models:/, and plain files as versions of a registered model."""

from __future__ import annotations

import uuid

import pytest

from medssl.errors import TrackingError
from medssl.tracking.artifacts import Remote, fetch, is_remote, parse
from medssl.tracking.log import RunLog
from medssl.tracking.mlflow_store import Store

RUN = "0" * 32


@pytest.fixture
def log(settings):
    log = RunLog(settings.work_dir / "tracking" / "one" / "001", resume=False, root=settings.work_dir)
    log.start(name="one", stage="pretrain", experiment=settings.experiment)
    return log


def registered(log, sink, settings, model: str, text: str = "weights") -> str:
    """Log a folder `encoder` and register it; the run's id."""
    folder = settings.work_dir / "out"
    folder.mkdir(exist_ok=True)
    (folder / "encoder.json").write_text(text)
    log.artifact(folder, folder="encoder")
    log.register(model, folder="encoder", tags={"medssl.arm": "in_domain"})
    log.end("finished")
    one = sink(log.folder)
    one.replay()
    return one.run_id


def test_the_forms():
    assert parse(f"runs:/{RUN}/encoder") == Remote(run=RUN, path="encoder")
    assert parse("models:/chest/3") == Remote(name="chest", version="3")
    assert parse("models:/chest@best") == Remote(name="chest", alias="best")
    assert parse("models:/chest/3/encoder/") == Remote(name="chest", version="3", path="encoder")
    assert str(Remote(name="chest", version="3", alias="best")) == "version 3 of the registered model chest, alias best"
    assert is_remote("models:/x/1")
    assert not is_remote("/data/models:/x")


@pytest.mark.parametrize(
    "uri", ["runs:/short/encoder", f"runs:/{RUN}", "models:/chest", "models:/chest/latest", "models:/m@", "models:/"]
)
def test_other_forms_are_one_line(uri):
    with pytest.raises(TrackingError, match=r"is no artifact of an MLflow store; allowed: runs:/RUN_ID/path") as caught:
        parse(uri)
    assert "\n" not in str(caught.value)


def test_a_path_that_leads_out_is_refused():
    with pytest.raises(TrackingError, match="leads out"):
        parse(f"runs:/{RUN}/encoder/../../secret")


def test_a_registered_folder_is_found_by_version_and_alias(log, sink, settings, client, tmp_path):
    model = f"chest-{uuid.uuid4().hex[:6]}"
    run_id = registered(log, sink, settings, model)
    store = Store(settings.store_uri)
    found = client.get_model_version(model, "1")
    assert (found.run_id, found.tags) == (run_id, {"medssl.arm": "in_domain"})
    client.set_registered_model_alias(model, "best", "1")
    for number, uri in enumerate((f"models:/{model}/1", f"models:/{model}@best", f"runs:/{run_id}/encoder")):
        place, remote = fetch(uri, store, tmp_path / f"to{number}")
        assert [path.read_text() for path in place.rglob("encoder.json")] == ["weights"]
        assert (tmp_path / f"to{number}") in (place, *place.parents), "the store's own copy was handed out"
        assert remote.version == (None if uri.startswith("runs") else "1")


def test_sent_again_it_is_registered_once(log, sink, settings, client):
    model = f"chest-{uuid.uuid4().hex[:6]}"
    registered(log, sink, settings, model)
    (log.folder / "mlflow.json").unlink()  # a sink that has lost its memory
    sink(log.folder).replay()
    assert len(client.search_model_versions(f"name = '{model}'")) == 1
    second = RunLog(log.folder.with_name("002"), resume=False, root=settings.work_dir)
    second.start(name="two", stage="pretrain", experiment=settings.experiment)
    registered(second, sink, settings, model, "other weights")
    assert sorted(version.version for version in client.search_model_versions(f"name = '{model}'")) in ([1, 2], ["1", "2"])


def test_what_is_not_there_is_one_line(settings, client, tmp_path):
    store = Store(settings.store_uri)
    for uri in (f"runs:/{RUN}/encoder", "models:/never_heard_of/1", "models:/never_heard_of@best"):
        with pytest.raises(TrackingError, match="cannot be fetched") as caught:
            fetch(uri, store, tmp_path / "to")
        assert "\n" not in str(caught.value)
    run = client.create_run(client.create_experiment(settings.experiment, artifact_location=(tmp_path / "artifacts").as_uri()))
    with pytest.raises(TrackingError, match="cannot be fetched"):
        fetch(f"runs:/{run.info.run_id}/encoder", store, tmp_path / "to")
    with pytest.raises(TrackingError, match="there is no MLflow store"):
        fetch(f"runs:/{RUN}/encoder", Store(f"sqlite:///{tmp_path}/none.db"), tmp_path / "to")
    assert not (tmp_path / "none.db").exists()
