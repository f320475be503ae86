"""What is wrong with an archive, or worth a look: checks with a verdict, and the keys of the images they are about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from medssl.data.formats.items import REASONS
from medssl.report import html
from medssl.report.archive_counts import percent, windows_used
from medssl.report.html import Markup

KEYS = 12  # keys that a list names
GROUPS = 25  # groups of identical or nearly identical images that are shown
LONGEST = 2.5  # longer side over shorter side; beyond it an image is mostly padding
FIRST_YEAR = 1985  # of the first edition of the standard that became DICOM
TASK = ("train", "validation", "test")


class Check(NamedTuple):
    """A sentence with its verdict."""

    verdict: Literal["wrong", "look", "fine"]
    said: str


class Oddity(NamedTuple):
    """Images of one kind to look at, by position in the manifest."""

    name: str
    meaning: str
    rows: np.ndarray


def oddities(manifest: pd.DataFrame, store_size: int, window_rule: str) -> list[Oddity]:
    """Images that can be read but may not be what they should be; empty kinds are left out."""
    longer, shorter = manifest[["rows", "columns"]].max(axis=1), manifest[["rows", "columns"]].min(axis=1)
    low = manifest["window_center"] - manifest["window_width"] / 2
    high = manifest["window_center"] + manifest["window_width"] / 2
    own = windows_used(manifest, window_rule).eq("file") & manifest["window_function"].ne("sigmoid")
    kinds = {
        "Nearly one value": (
            "Percentiles 0.5 and 99.5 are equal: an empty or failed exposure, or a few pixels on a flat ground.",
            manifest["p00_5"] >= manifest["p99_5"],
        ),
        "The window misses the pixels": (
            "The file's window lies wholly above or below the image's values, so it comes out black or white; "
            "set another window in the card, or encoder.window: percentile.",
            own & ((high < manifest["p00_5"]) | (low > manifest["p99_5"])),
        ),
        "Enlarged": (
            f"Both sides are smaller than the store's {store_size} px: enlarging adds no detail.",
            manifest["kind"].eq("image") & (longer < store_size),
        ),
        "Long and narrow": (
            f"One side is more than {LONGEST:g} times the other: most of the square is padding.",
            manifest["kind"].eq("image") & (longer > LONGEST * shorter),
        ),
        "Implausible date": (
            f"The study's year is before {FIRST_YEAR}: a placeholder, or a date that was shifted to hide the true one.",
            manifest["study_year"] < FIRST_YEAR,
        ),
        "Mostly padding": ("More than half of the pixels were padding in the file.", manifest["padding"] > 0.5),
    }
    found = [Oddity(name, meaning, np.flatnonzero(rows.fillna(False).to_numpy(bool))) for name, (meaning, rows) in kinds.items()]
    return [oddity for oddity in found if len(oddity.rows)]


def oddity_table(manifest: pd.DataFrame, found: list[Oddity]) -> Markup:
    """One row a kind: images, data sets, meaning, the first keys."""
    if not found:
        return html.paragraph("None: nothing is enlarged, nearly empty, mostly padding or unusually narrow.")
    rows = []
    for name, meaning, places in found:
        sources = manifest["source"].iloc[places].value_counts()
        where = ", ".join(f"{source} {count:,}" for source, count in sources.items())
        key_list = keys(manifest["row_key"].iloc[places[:KEYS]], len(places))
        rows.append((name, f"{len(places):,}", where, meaning, key_list))
    return html.table("", ("what", "images", "data set", "what it means", "keys"), rows, numbers=[1], kind="words")


def keys(first: Iterable[str], count: int) -> Markup:
    """Keys as code, and how many more there are."""
    first = [str(key) for key in first]
    more = f" <small>and {count - len(first):,} more</small>" if count > len(first) else ""
    return Markup(" ".join(f"<code>{html.text(key)}</code>" for key in first) + more)


def reject_table(rejects: pd.DataFrame) -> Markup:
    """One row a reason: its sentence, most frequent details, data sets, the first three keys."""
    if rejects.empty:
        return html.paragraph("None: every file that the cards ask for was read.")
    rows = []
    for reason, count in rejects["reason"].value_counts().items():
        own = rejects[rejects["reason"] == reason]
        sources = ", ".join(f"{source} {number:,}" for source, number in own["source"].value_counts().items())
        details = own.loc[own["detail"].fillna("").ne(""), "detail"].value_counts().head(3)
        said = "; ".join(f"{detail} ({number:,})" for detail, number in details.items())
        meaning = Markup(html.text(REASONS[reason]) + (f"<small>{html.text(said)}</small>" if said else ""))
        name = Markup(f"<code>{html.text(reason)}</code>")
        rows.append((name, f"{count:,}", sources, meaning, keys(own["row_key"].head(3), int(count))))
    return html.table("", ("reason", "files", "data set", "what it means", "keys"), rows, numbers=[1], kind="words")


def crossing(shared: pd.DataFrame) -> pd.DataFrame:
    """The groups of `shared` that lie in more than one split or under more than one patient, most splits first."""
    splits = shared["splits"].map(lambda names: len(set(names.split(", ")) & set(TASK)))
    found = shared.assign(_splits=splits)[(splits > 1) | (shared["patients"] > 1)]
    return found.sort_values(["_splits", "images"], ascending=False, kind="stable")


def shared_table(shared: pd.DataFrame | None) -> Markup:
    """Groups of (nearly) identical images that lie in several splits or under several patients, of what `groups.shared_images` found."""
    if shared is None:
        return html.paragraph("Identical and nearly identical images were not looked for.")
    found = crossing(shared)
    identical = int(shared["identical"].sum())
    exact, near = several(identical, "group"), several(len(shared) - identical, "group")
    said = f"Found: {exact} of pixel-identical images, {near} of nearly identical ones"
    if found.empty:
        return html.paragraph(f"{said}. None is divided between splits or patients.")
    rows = []
    for group in found.head(GROUPS).to_dict("records"):
        kind = "identical" if group["identical"] else "nearly identical"
        counts = f"{group['images']:,}", f"{group['patients']:,}"
        key_list = keys(list(group["row_keys"])[:KEYS], int(group["images"]))
        rows.append((kind, *counts, group["splits"], group["sources"], key_list))
    shown = f"; the first {GROUPS}" if len(found) > GROUPS else ""
    caption = f"{said}. In more than one split, or under more than one patient: {len(found):,}{shown}"
    return html.table(caption, ("kind", "images", "patients", "splits", "data sets", "keys"), rows, numbers=[1, 2], kind="keys")


def linked_table(splits: pd.DataFrame) -> Markup:
    """Patients under several keys, which are taken for one: the first groups."""
    groups = linked(splits)
    if groups.empty:
        return html.paragraph("No two patients were taken for one.")
    rows = []
    for _, patients in list(groups.groupby("group", sort=False)["patient"])[:GROUPS]:
        own = splits["patient"].isin(patients)
        where = ", ".join(dict.fromkeys(splits.loc[own, "split"]))
        rows.append((f"{len(patients):,}", f"{int(own.sum()):,}", where, keys(patients.head(KEYS), len(patients))))
    count = groups["group"].nunique()
    caption = f"{several(count, 'group')} of patients who share an identical or nearly identical image; a group is never divided"
    caption += f"; the first {GROUPS}" if count > GROUPS else ""
    return html.table(caption, ("patients", "images", "splits", "keys of the patients"), rows, numbers=[1], kind="keys")


def linked(splits: pd.DataFrame) -> pd.DataFrame:
    """Columns group, patient: the patients of every group that has more than one."""
    pairs = splits[["group", "patient"]].drop_duplicates()
    return pairs[pairs.duplicated("group", keep=False)]


def checks(
    manifest: pd.DataFrame,
    splits: pd.DataFrame,
    rejects: pd.DataFrame,
    odd: list[Oddity],
    shared: pd.DataFrame | None,
    flagged: int,
) -> list[Check]:
    """Every check with its result, the worst first."""
    found = [
        *_leaks(splits),
        *_shared(shared),
        *_read(manifest, rejects),
        *_patients(manifest, splits),
        *(Check("look", f"{one.name}: {several(len(one.rows), 'image')}. {one.meaning}") for one in odd),
    ]
    if flagged:
        found.append(
            Check("look", f"May show text or a face: {several(flagged, 'image')}, not drawn here, never sent to a tracker.")
        )
    return sorted(found, key=lambda check: ("wrong", "look", "fine").index(check.verdict))


def several(count: int, thing: str) -> str:
    """'1 image', '1,200 images'."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _leaks(splits: pd.DataFrame) -> list[Check]:
    task = splits[splits["split"].isin(TASK)]
    pairs = task[["patient", "split"]].drop_duplicates()
    divided = int(pairs.loc[pairs.duplicated("patient"), "patient"].nunique())
    held = task.loc[task["split"].ne("train"), "group"].unique()
    seen = int((splits["pretrain"].astype(bool) & splits["group"].isin(held)).sum())
    found = [Check("fine", "No patient is in more than one of training, validation and test.")]
    if divided:
        found = [Check("wrong", f"In more than one of training, validation and test: {several(divided, 'patient')}.")]
    if seen:
        said = f"Pretraining may see {several(seen, 'image')} of validation and test patients: transductive, for new patients expect less."
        return [*found, Check("look", said)]
    return [*found, Check("fine", "Pretraining sees no image of a validation or test patient.")]


def _shared(shared: pd.DataFrame | None) -> list[Check]:
    if shared is None:
        return [Check("look", "Identical and nearly identical images were not looked for.")]
    found, checks = crossing(shared), []
    divided = found[found["_splits"] > 1]
    for identical, verdict, name in ((True, "wrong", "identical"), (False, "look", "nearly identical")):
        if count := int(divided["identical"].eq(identical).sum()):
            groups = several(count, "group")
            checks.append(Check(verdict, f"In more than one of training, validation and test: {groups} of {name} images."))
    if count := len(found) - len(divided):
        checks.append(
            Check("look", f"Under more than one patient, but not in two splits: {several(count, 'group')} of like images.")
        )
    return checks or [Check("fine", "No identical or nearly identical images are in two splits or under two patients.")]


def _read(manifest: pd.DataFrame, rejects: pd.DataFrame) -> list[Check]:
    if rejects.empty:
        return [Check("fine", "Every file that the cards ask for was read.")]
    share = percent(len(rejects) / (len(manifest) + len(rejects)))
    top = rejects["reason"].value_counts()
    why = f"most often: {top.index[0].replace('_', ' ')} ({top.iloc[0]:,})"
    return [Check("look", f"Set aside: {several(len(rejects), 'file')}, {share} of what was found; {why}.")]


def _patients(manifest: pd.DataFrame, splits: pd.DataFrame) -> list[Check]:
    found = []
    origin = manifest["patient_from"].value_counts()
    if count := int(origin.get("image", 0)):
        said = "Each counts as a patient, so images of one patient may stand on both sides of a split."
        found.append(Check("look", f"No patient is known: {several(count, 'image')}. {said}"))
    if count := int(origin.get("study", 0)):
        said = "Each study counts as a patient."
        found.append(Check("look", f"The patient ID is empty or a placeholder: {several(count, 'image')}. {said}"))
    if count := linked(splits)["patient"].nunique():
        found.append(
            Check(
                "look",
                f"Taken for one person with another key: {several(count, 'patient')}, whose images are identical or nearly so.",
            )
        )
    return found
