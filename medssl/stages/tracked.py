"""The data sets of a study as inputs of a tracked run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medssl.stages.workspace import Workspace

if TYPE_CHECKING:
    from medssl.tracking import RunLog

PROFILE = ("images", "patients", "rejects", "store_digest")


def track_data(work: Workspace, log: RunLog, summary: dict[str, Any], sources: list[str], context: str) -> None:
    """Log the data sets `sources` as inputs of a run, with the digest of the manifest's content.

    The profile is that of the whole archive and the same in every run: trackers keep one profile a name and digest.
    """
    for source in sources:
        card = work.cards[source]
        profile = {name: summary[name] for name in PROFILE}
        log.dataset(
            name=f"{source} ({card.name})", digest=summary["data_digest"], source=card.source, context=context, profile=profile
        )
