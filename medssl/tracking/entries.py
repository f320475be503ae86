"""What stands in the log, in the forms and within the limits of MLflow's entities. Pure functions: nothing here calls a store."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from medssl.tracking.log import TIME

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

# mlflow.utils.validation; the values hold for every MLflow 3 server.
POINTS = 1000  # MAX_METRICS_PER_BATCH
PAIRS = 100  # MAX_PARAMS_TAGS_PER_BATCH
PARAM_LENGTH, TAG_LENGTH, KEY_LENGTH = 6000, 8000, 250
DIGEST_LENGTH = 36
REQUEST_BYTES = 800_000  # MAX_BATCH_LOG_REQUEST_SIZE is 1e6

_UNFIT = re.compile(r"[^\w.\- /]")


def points(record: Mapping[str, Any]) -> list[Metric]:
    """The metric points of one line of metrics.jsonl or system.jsonl."""
    from mlflow.entities import Metric

    step, time = record["step"], record[TIME]
    return [Metric(key, float(value), time, step) for key, value in record.items() if key not in ("step", TIME)]


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested params as `a.b: text`: strings as they are, all else as JSON."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def fit_key(key: str) -> str:
    """`key`, or where MLflow refuses it a legal name that no other key gets."""
    legal = "/".join(part for part in _UNFIT.sub("_", key).split("/") if part.strip("."))
    if legal == key and len(key) <= KEY_LENGTH:
        return key
    return f"{legal[: KEY_LENGTH - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def fit(values: Mapping[str, str], length: int) -> tuple[dict[str, str], bool]:
    """`values` with legal keys, the long ones cut and ending with "…"; and whether anything was changed."""
    fitted = {fit_key(key): text if len(text) <= length else text[: length - 1] + "…" for key, text in values.items()}
    return fitted, fitted != dict(values)


def pairs(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """`values` in parts that fit into one request each."""
    part: dict[str, str] = {}
    size = 0
    for key, text in values.items():
        cost = len(json.dumps([key, text])) + 30
        if part and (len(part) == PAIRS or size + cost > REQUEST_BYTES):
            yield part
            part, size = {}, 0
        part[key] = text
        size += cost
    if part:
        yield part


def run_tags(start: Mapping[str, Any], parent: str | None) -> dict[str, str]:
    """The tags that a run is created with."""
    tags = {"mlflow.source.name": f"medssl {start['stage']}", "mlflow.source.type": "LOCAL", "medssl.stage": start["stage"]}
    if start["parent"] is not None:
        tags["medssl.parent"] = start["parent"]
    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    return tags


def dataset(event: Mapping[str, Any]) -> DatasetInput:
    """A dataset event as the input of a run. The digest is cut to MLflow's 36 characters and stands whole in the profile."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"digest": event["digest"], **event["profile"]}, ensure_ascii=False)
    source = json.dumps({"uri": event["source"]}, ensure_ascii=False)
    data = Dataset(event["name"][:500], event["digest"][:DIGEST_LENGTH], "local", source, profile=profile)
    return DatasetInput(data, [InputTag("mlflow.data.context", event["context"])])
