"""Self-supervised methods, one file each. A new method is one new file and one line in METHODS."""

from __future__ import annotations

from typing import Any

from medssl.errors import StudyError
from medssl.methods.base import Method, Output, ParameterGroup, ViewSpec
from medssl.methods.simsiam import SimSiam, SimSiamSettings
from medssl.models.encoder import Encoder
from medssl.models.weights import init_stream
from medssl.strict import StrictModel, check, near_miss

__all__ = ["METHODS", "Method", "Output", "ParameterGroup", "ViewSpec", "build_method", "method_settings"]

METHODS: dict[str, tuple[type[StrictModel], type[Method]]] = {"simsiam": (SimSiamSettings, SimSiam)}


def method_settings(value: dict[str, Any], where: str = "pretrain.method") -> StrictModel:
    """The checked settings of the method that `value["name"]` names.

    Raises:
        StudyError: there is no such method, or one of its settings is wrong.
    """
    name = value.get("name")
    if name not in METHODS:
        raise StudyError(f"{where}.name: is {name!r}{near_miss(str(name), list(METHODS))}; allowed: {', '.join(METHODS)}")
    return check(METHODS[name][0], value, where, StudyError)


def build_method(settings: StrictModel, encoder: Encoder, *, seed: int) -> Method:
    """A method around `encoder`; its heads are drawn from the stream ("init", "heads") of `seed`."""
    with init_stream(seed, "heads"):
        return METHODS[settings.name][1](settings, encoder)
