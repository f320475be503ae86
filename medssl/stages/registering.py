"""Pretrained encoders as versions of a registered model in the tracker: `tracking.register`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.stages.screen import say
from medssl.stages.workspace import Workspace
from medssl.tracking import lines
from medssl.tracking.log import EVENTS

if TYPE_CHECKING:
    from medssl.tracking import RunLog


def register_encoder(work: Workspace, name: str, log: RunLog, folder: str, tags: dict[str, str]) -> None:
    """Have the tracker make a run's artifacts below `folder` a version of the study's registered model.

    It is an event of the log like all else: a tracker that is out of reach gets it with `medssl track sync`.
    """
    model = work.study.tracking.register
    log.register(model, folder=folder, tags=tags)
    say("pretrain", f"{name}: its encoder becomes a version of the registered model {model}")


def register_late(work: Workspace, name: str, folder: str, tags: dict[str, str]) -> None:
    """The same for a finished run whose log does not say so: `tracking.register` was set after it was trained."""
    model, last = work.study.tracking.register, work.next_log(f"pretrain-{name}", resume=True)
    if model is None or not (last / EVENTS).exists():
        return
    events = [event for _, event in lines.read(last / EVENTS)]
    if any(event["event"] == "register" and event["model"] == model for event in events):
        return
    with work.open_log(f"pretrain-{name}", stage="pretrain", resume=True, tags=tags) as log:
        register_encoder(work, name, log, folder, tags)
