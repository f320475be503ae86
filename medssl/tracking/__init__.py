"""The local log of every run, and MLflow as a sink that is replayed from it. mlflow is imported when a store is opened."""

from __future__ import annotations

from medssl.tracking.log import RunLog
from medssl.tracking.redact import redact_study
from medssl.tracking.run import open_run
from medssl.tracking.settings import TrackingSettings
from medssl.tracking.sync import sync_all

__all__ = ["RunLog", "TrackingSettings", "open_run", "redact_study", "sync_all"]
