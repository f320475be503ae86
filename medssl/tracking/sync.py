"""Brings MLflow up to date with every log of a work folder: after an outage, from a machine without a network, in a new store."""

from __future__ import annotations

import os
from pathlib import Path

from medssl.errors import UserError
from medssl.tracking.log import EVENTS, read_start
from medssl.tracking.mlflow_store import BusyError, SendingError, UnreachableError
from medssl.tracking.run import make_sink
from medssl.tracking.settings import TrackingSettings


def sync_all(work_dir: Path, settings: TrackingSettings | None = None) -> list[tuple[Path, str]]:
    """Replay every log below `work_dir`, parents before children.

    Args:
        settings: the store to bring up to date; None = `mlflow.db` in the work folder. Each log goes to the experiment that it
            names, whatever `settings.experiment` says.

    Returns:
        For each log its folder and "up to date", "sent P points and E events", "left alone: " where its own run, still going
        on, is sending it, or "not sent: " and why. After a store was found out of reach no other log is tried.
    """
    settings = settings or TrackingSettings(uri=None, experiment="medssl", work_dir=Path(work_dir))
    done: list[tuple[Path, str]] = []
    out_of_reach: str | None = None
    for folder in find_logs(work_dir):
        if out_of_reach is not None:
            done.append((folder, out_of_reach))
            continue
        try:
            start = read_start(folder)
            if start is None:
                continue
            sent = make_sink(folder, settings, experiment=start["experiment"]).replay()
            changed = sent.points or sent.events
            done.append((folder, f"sent {sent.points} points and {sent.events} events" if changed else "up to date"))
        except SendingError as error:
            done.append((folder, f"left alone: {error}"))
        except BusyError as error:
            done.append((folder, f"not sent: {error}"))
        except UnreachableError as error:
            out_of_reach = f"not sent: {error}"
            done.append((folder, out_of_reach))
        except UserError as error:
            done.append((folder, f"not sent: {error}"))
    return done


def find_logs(work_dir: Path) -> list[Path]:
    """The folders of all logs below `work_dir`, sorted; private/, MLflow's artifacts and links are not entered."""
    found: list[Path] = []
    for current, folders, files in os.walk(work_dir):
        folders[:] = sorted(set(folders) - {"private", "mlartifacts"})
        if EVENTS in files:
            found.append(Path(current))
    return sorted(found)
