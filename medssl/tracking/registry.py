"""MLflow's model registry: an encoder that was trained becomes a version of a registered model, as plain files.

No flavour is logged: an MLflow flavour of a torch model is a pickle, which runs code when it is loaded. A version is a name, a number
and a place, so `models:/NAME/1` leads to encoder.json and encoder.safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medssl.tracking.mlflow_store import Store


def register(store: Store, run_id: str, event: Mapping[str, Any]) -> str:
    """Make artifacts of a run a version of a registered model, which is created if missing; once, however often it is asked for.

    Args:
        event: `model`, `folder` of the artifacts and `tags`, as `RunLog.register` wrote it.

    Returns:
        The version.

    Raises:
        UnreachableError, TrackingError: see `Store.calls`.
    """
    from mlflow.exceptions import MlflowException

    with store.calls() as client:
        name = event["model"]
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.run_id == run_id and version.source.rstrip("/").endswith(f"/{event['folder']}"):
                return str(version.version)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{client.get_run(run_id).info.artifact_uri.rstrip('/')}/{event['folder']}"
        made = client.create_model_version(name, source, run_id, tags=dict(event["tags"]), await_creation_for=None)
        return str(made.version)
