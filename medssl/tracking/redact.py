"""A study file as it may be shown to a tracker: without places on this machine and without passwords."""

from __future__ import annotations

import re
from typing import Any

from medssl.tracking.settings import without_credentials

LOCAL = "<local>"
_ABSOLUTE = re.compile(r"(/|~|\\\\|[A-Za-z]:[\\/])")


def redact_study(study: dict[str, Any]) -> dict[str, Any]:
    """A copy of `study` in which `data.*.root`, `work_dir`, `privacy.secret_file` and every absolute path are "<local>".

    The tracking uri loses user and password, and a SQLite uri its path.
    """
    copy = without_paths(study)
    for source in (copy.get("data") or {}).values():
        _hide(source, "root")
    _hide(copy, "work_dir")
    _hide(copy.get("privacy"), "secret_file")
    tracking = copy.get("tracking")
    if isinstance(tracking, dict) and isinstance(tracking.get("uri"), str):
        uri = tracking["uri"]
        tracking["uri"] = f"sqlite:///{LOCAL}" if uri.startswith("sqlite:") else without_credentials(uri)
    return copy


def _hide(section: Any, key: str) -> None:
    if isinstance(section, dict) and section.get(key) is not None:
        section[key] = LOCAL


def without_paths(value: Any) -> Any:
    """A copy of JSON-like `value` in which every absolute path is "<local>"."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return LOCAL if isinstance(value, str) and _ABSOLUTE.match(value) else value
