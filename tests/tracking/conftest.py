"""One real SQLite store for the session: making its tables takes two seconds."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from medssl.tracking import TrackingSettings
from medssl.tracking.mlflow_sink import Sink
from medssl.tracking.mlflow_store import Store, prepare_mlflow
from medssl.tracking.run import make_sink


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    with Store(uri).calls():
        pass
    return uri


@pytest.fixture
def settings(store_uri: str, tmp_path: Path) -> TrackingSettings:
    """A work folder and an experiment of the test's own."""
    return TrackingSettings(store_uri, uuid.uuid4().hex, tmp_path)


@pytest.fixture
def sink(settings: TrackingSettings) -> Callable[[Path], Sink]:
    return lambda folder: make_sink(folder, settings)


@pytest.fixture
def client(store_uri: str):
    prepare_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(store_uri)


@pytest.fixture(scope="session")
def outages() -> ModuleType:
    """The module outages.py beside this file: pytest's importlib mode does not let a test import what stands beside it."""
    spec = importlib.util.spec_from_file_location("medssl_tests_outages", Path(__file__).with_name("outages.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server(outages: ModuleType, tmp_path: Path) -> Iterator:
    """An `outages.Server`, not started."""
    server = outages.Server(tmp_path / "server")
    yield server
    server.kill()
