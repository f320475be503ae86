"""Self-supervised methods, one file each. A new method is one new file and one line in METHODS."""

from __future__ import annotations

from typing import Any

from medssl.errors import StudyError
from medssl.methods.barlow_twins import BarlowTwins, BarlowTwinsSettings
from medssl.methods.base import Batch, Method, Output, ParameterGroup, View, ViewSpec
from medssl.methods.byol import BYOL, BYOLSettings
from medssl.methods.moco import MoCo, MoCoSettings
from medssl.methods.simclr import SimCLR, SimCLRSettings
from medssl.methods.simsiam import SimSiam, SimSiamSettings
from medssl.methods.simtriplet import SimTriplet, SimTripletSettings
from medssl.methods.swav import SwAV, SwAVSettings
from medssl.models.encoder import Encoder
from medssl.models.weights import init_stream
from medssl.strict import StrictModel, check, near_miss

__all__ = ["METHODS", "Batch", "Method", "Output", "ParameterGroup", "View", "ViewSpec", "build_method", "method_settings"]

METHODS: dict[str, tuple[type[StrictModel], type[Method]]] = {
    "simsiam": (SimSiamSettings, SimSiam),
    "simtriplet": (SimTripletSettings, SimTriplet),
    "byol": (BYOLSettings, BYOL),
    "moco": (MoCoSettings, MoCo),
    "simclr": (SimCLRSettings, SimCLR),
    "swav": (SwAVSettings, SwAV),
    "barlow_twins": (BarlowTwinsSettings, BarlowTwins),
}


def method_settings(value: dict[str, Any], where: str = "pretrain.method") -> StrictModel:
    """The checked settings of the method that `value["name"]` names.

    Raises:
        StudyError: there is no such method, or one of its settings is wrong.
    """
    name = value.get("name")
    if not isinstance(name, str) or name not in METHODS:
        raise StudyError(f"{where}.name: is {name!r}{near_miss(str(name), list(METHODS))}; allowed: {', '.join(METHODS)}")
    return check(METHODS[name][0], value, where, StudyError)


def build_method(settings: StrictModel, encoder: Encoder, *, seed: int) -> Method:
    """A method around `encoder`; its heads are drawn from the stream ("init", "heads") of `seed`."""
    with init_stream(seed, "heads"):
        return METHODS[settings.name][1](settings, encoder)
