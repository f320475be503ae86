"""track sync: send to MLflow what it has not got yet."""

from __future__ import annotations

from medssl.errors import TrackingError
from medssl.stages.screen import say
from medssl.stages.workspace import Workspace
from medssl.tracking import sync_all


def sync(work: Workspace) -> None:
    """Replay every local log of the work folder.

    Raises:
        TrackingError: some of it could still not be sent.
    """
    results = sync_all(work.folder.resolve(), work.tracking_settings())
    if not results:
        say("track", "there is no log in this work folder yet")
    failed = [status.removeprefix("not sent: ") for _, status in results if status.startswith("not sent")]
    for folder, status in results:
        if not status.startswith("not sent"):
            say("track", f"{folder.relative_to(work.folder.resolve() / 'tracking')}: {status}")
    if failed:
        raise TrackingError(
            f"track sync: {len(failed)} of {len(results)} logs could not be sent: {failed[0]}; they stay for the next time"
        )
