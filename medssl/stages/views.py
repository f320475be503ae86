"""views: what a study's views and related images look like, before days of training are spent on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.augment.policies import POLICIES, build_policy, departures, policy_settings
from medssl.augment.views import ViewSettings, smallest_crop
from medssl.data.archive import Archive
from medssl.data.pairs import related_images
from medssl.data.volumes import VolumeSource
from medssl.errors import DataError, StudyError
from medssl.files import write_atomic
from medssl.finetuning import NETWORK_MODES
from medssl.report.archive_sample import draw, is_flagged
from medssl.report.pairs_sheet import pairs_sheet
from medssl.report.views_sheet import views_sheet
from medssl.seeds import numpy_generator
from medssl.stages.index import index
from medssl.stages.screen import say, warn
from medssl.stages.workspace import Workspace, check_components

if TYPE_CHECKING:
    import pandas as pd

    from medssl.tracking import RunLog

STEPS = ("pretrain", "finetune", "pairs")


def views(work: Workspace, out: Path, *, images: int = 6, count: int = 5, of: str = "pretrain") -> Path:
    """Write a contact sheet of images that pretraining may see, and of views of them; returns its path.

    Args:
        images: rows of the sheet, spread over data sets, vendors and patients.
        count: views of each image.
        of: `pretrain` (pretrain.views), `finetune` (of the first mode that trains weights, such as finetune.full.views), or `pairs`
            (the cards' positive_pairs): then `count` epochs are drawn instead of views.

    Raises:
        StudyError: there is no such step, or the study does not fine-tune all weights.
        DataError: the policy does not fit the images; no card says which are related; volumes are asked for pairs.
    """
    if of not in STEPS:
        raise StudyError(f"--of {of}: allowed: {', '.join(STEPS)}")
    if of == "pairs":
        return _pairs(work, out, images, count)
    if of == "finetune" and _network_mode(work) is None:
        raise StudyError(
            f"{work.study_file}: finetune.{', finetune.'.join(NETWORK_MODES)}: are null, so there are no views of fine-tuning"
        )
    check_components(work.study)
    archive = index(work)
    settings = chosen_settings(work, of)
    rows = archive.rows(pretrain=True, source=sorted(work.study.pretrain.sources or work.study.data))
    check_fit(archive, rows, settings, "pretrain.views" if of == "pretrain" else f"finetune.{_network_mode(work)}.views")
    chosen = _drawn(work, archive, rows, images)
    sheet = _sheet(work, archive, chosen, settings, count)
    _write(work, out, of, sheet, archive.manifest.iloc[chosen], {"views": settings.model_dump(mode="json", exclude_none=True)})
    tell_departures(settings)
    say("views", f"{len(chosen)} images and {count} views of each, policy {settings.policy}: {out}")
    return out


def _pairs(work: Workspace, out: Path, images: int, epochs: int) -> Path:
    cards = {name: work.cards[name] for name in sorted(work.study.pretrain.sources or work.study.data)}
    for name, card in cards.items():
        if card.read.units == "volumes":
            raise DataError(f"views --of pairs: is for images, and {name} is indexed as volumes; set `units: slices` in its card")
    if not any(card.positive_pairs for card in cards.values()):
        raise DataError(
            f"views: no data card says which images are related; add `positive_pairs` to the card of {' or '.join(cards)}"
        )
    archive = index(work)
    rows = archive.rows(pretrain=True, source=list(cards))
    if len(rows) == 0:
        raise DataError("views: there are no images that pretraining may see; see `medssl index --report`")
    source, manifest = archive.pixels(rows, work.study.encoder.window), archive.manifest.iloc[rows]
    related = related_images(manifest, {name: card.positive_pairs for name, card in cards.items()})
    chosen = np.searchsorted(rows, _drawn(work, archive, rows, images))
    drawn = np.stack([related.partners(work.study.seed, epoch).numpy()[chosen] for epoch in range(epochs)])
    sheet = pairs_sheet(source.batch, manifest, related, chosen, drawn, work.study.encoder.input_size)
    shown = manifest.iloc[np.unique(np.concatenate([chosen, drawn[drawn >= 0]]))]
    _write(work, out, "pairs", sheet, shown, {"pairs": related.sentence()})
    say("views", related.sentence())
    say("views", f"{len(chosen)} images and what {epochs} epochs draw for each: {out}")
    return out


def _write(work: Workspace, out: Path, of: str, sheet: bytes, shown: pd.DataFrame, params: dict[str, Any]) -> None:
    """Write a sheet to `out` and into the work folder, from where the tracker gets it unless one of the images may show text."""
    own = work.folder / f"views_{of}.png"  # trackers take files of the work folder alone
    for path in (own, out):
        write_atomic(path, sheet)
    with work.open_log("views", stage="views", params=params) as log:
        if is_flagged(shown).any():
            warn("views: an image on the sheet may show burned-in text, so the sheet is kept from the tracker")
        else:
            log.artifact(own, pixels=True)


SHEET_FROM = 50_000
"""Of so many images, drawn at random, those on the sheet of a pretraining are chosen."""


def chosen_settings(work: Workspace, of: str) -> ViewSettings:
    """The checked settings of the views of a step."""
    if of == "finetune":
        return finetune_views(work, _network_mode(work))
    return policy_settings(work.study.pretrain.views)


def finetune_views(work: Workspace, mode: str) -> ViewSettings:
    """The checked settings of the views of a mode of fine-tuning that trains weights."""
    return policy_settings(getattr(work.study.finetune, mode).views, f"finetune.{mode}.views")


def _network_mode(work: Workspace) -> str | None:
    """The first mode that trains weights, or None."""
    return next((mode for mode in work.study.finetune.modes() if mode in NETWORK_MODES), None)


def check_fit(archive: Archive, rows: np.ndarray, settings: ViewSettings, where: str = "pretrain.views") -> None:
    """Refuse views that are not for these images.

    Raises:
        DataError: there are none; or they are in colour, grey, or whole volumes, and the policy is for something else.
    """
    if len(rows) == 0:
        raise DataError("views: there are no images that pretraining may see; see `medssl index --report`")
    policy = POLICIES[settings.policy]
    part = archive.manifest[["source", "kind", "modality", "channels", "spacing_row", "spacing_column"]].iloc[rows]
    volumes = (part["kind"] == "volume").to_numpy()
    if volumes.any() and policy.dims == 2:
        name = part["source"].iloc[volumes.argmax()]
        raise DataError(f"{where}: {policy.name} is for images, and {name} is indexed as volumes; name a policy for volumes")
    if not volumes.all() and policy.dims == 3:
        name = part["source"].iloc[(~volumes).argmax()]
        raise DataError(
            f"{where}: {policy.name} is for volumes, and {name} is indexed as images; set `units: volumes` in its card"
        )
    colour = (part["channels"] == 3).to_numpy()
    if policy.channels == "rgb" and not colour.all():
        name = part["source"].iloc[(~colour).argmax()]
        raise DataError(f"{where}: {policy.name} is for colour images, and {name} has grey ones; set `channels: rgb` in its card")
    if policy.channels == "grey" and colour.any():
        name = part["source"].iloc[colour.argmax()]
        raise DataError(f"{where}: {policy.name} is for grey images, and {name} is in colour; name another policy")
    if (settings.ct_noise or settings.ct_kernel or settings.window.ct) and not (part["modality"] == "CT").all():
        name = part["source"].iloc[(part["modality"] != "CT").to_numpy().argmax()]
        raise DataError(
            f"{where}: ct_noise, ct_kernel and window.ct are in Hounsfield units, and {name} has images that are not CT"
        )
    if settings.geometry.crop_mm and part[["spacing_row", "spacing_column"]].isna().any(axis=None):
        name = part["source"].iloc[part["spacing_row"].isna().to_numpy().argmax()]
        raise DataError(
            f"{where}.geometry.crop_mm: {name} has images whose files say no spacing; set crop_mm: null and crop_scale"
        )


def tell_departures(settings: ViewSettings) -> None:
    """Say what the study switched on although its policy leaves it out for a reason."""
    for sentence in departures(settings):
        warn(f"views: {sentence}")


def tell_enlarged_crops(work: Workspace, settings: ViewSettings) -> None:
    """Warn where the smallest crop has fewer pixels than a view."""
    if settings.geometry.crop_mm or POLICIES[settings.policy].dims == 3:
        return  # known only once the spacing is
    size, side = work.study.encoder.input_size, smallest_crop(settings, work.study.store_size)
    if side < size - 0.5:
        need = int(np.ceil(size * work.study.store_size / side))
        warn(
            f"pretrain: the smallest crop, {side:.0f} px of the store, is enlarged to {size} px; store.size={need} would avoid it"
        )


def log_views(work: Workspace, archive: Archive, rows: np.ndarray, folder: Path, log: RunLog) -> None:
    """Write views.png into the folder of an arm and hand it to the tracker, which gets it only where the study lets pixels go there.

    Images that may show text or a face are left out; where there are no others there is no sheet, and the log says so.
    """
    if len(rows) > SHEET_FROM:  # grouping a million costs seconds, before the first step
        rows = np.sort(numpy_generator(work.study.seed, "views", "of").choice(rows, SHEET_FROM, replace=False))
    rows = rows[~is_flagged(archive.manifest[["flags", "burned_in"]].iloc[rows]).to_numpy()]
    if len(rows) == 0:
        warn("pretrain: every image may show burned-in text, so no contact sheet of views is kept")
        return
    path = folder / "views.png"
    write_atomic(path, _sheet(work, archive, _drawn(work, archive, rows, 6), chosen_settings(work, "pretrain"), 4))
    log.artifact(path, folder="views", pixels=True)


def _drawn(work: Workspace, archive: Archive, rows: np.ndarray, images: int) -> np.ndarray:
    """Some of the positions `rows`, the same each time."""
    return draw(archive.manifest, rows, images, numpy_generator(work.study.seed, "views", "sheet"))


def _sheet(work: Workspace, archive: Archive, chosen: np.ndarray, settings: ViewSettings, count: int) -> bytes:
    policy, rule = build_policy(settings), work.study.encoder.window
    make = VolumeSource(archive.store, archive.manifest, chosen, rule) if policy.dims == 3 else archive.pixels(chosen, rule)
    batch = make.batch(np.arange(len(chosen)))
    return views_sheet(batch, policy, work.study.encoder.input_size, work.study.seed, count)
