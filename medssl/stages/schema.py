"""The JSON Schema of study files, with the settings of every method and view policy in their places."""

from __future__ import annotations

from typing import Any

from medssl.augment.policies import POLICIES
from medssl.augment.views import ViewSettings
from medssl.methods import METHODS
from medssl.study import Study


def study_schema() -> dict[str, Any]:
    """The schema; methods and policies come from their registries, so a new one is in it by itself."""
    schema = Study.model_json_schema()
    definitions = schema["$defs"]
    methods = [_define(definitions, settings) for settings, _ in METHODS.values()]
    views = _define(definitions, ViewSettings)
    definitions[ViewSettings.__name__]["properties"]["policy"] = {"enum": list(POLICIES)}
    definitions["PretrainSettings"]["properties"]["method"] = {"anyOf": methods}
    definitions["PretrainSettings"]["properties"]["views"] = views
    definitions["SweepSettings"]["properties"]["methods"] = {
        "anyOf": [{"type": "array", "items": {"anyOf": methods}}, {"type": "null"}]
    }
    definitions["FullSettings"]["properties"]["views"] = views
    return schema


def _define(definitions: dict[str, Any], settings: type) -> dict[str, str]:
    inner = settings.model_json_schema()
    definitions.update(inner.pop("$defs", {}))
    definitions[settings.__name__] = inner
    return {"$ref": f"#/$defs/{settings.__name__}"}
