"""The worst errors: the images an arm was most sure of and wrong about, each beside its Grad-CAM overlay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medssl.report import html
from medssl.report.contact_sheet import sheet_html
from medssl.report.document import document
from medssl.report.html import Markup
from medssl.task import Outputs

LOCAL = "worst.html"  # the page's name beside the report; it never leaves the machine unless images may
PER_ARM = 8
WIDTH = 384  # px, of an image and its overlay together


@dataclass(frozen=True)
class WorstImage:
    """One error to look at.

    Attributes:
        row_key: of the manifest; the only key that is shown.
        image: (H, W) or (3, H, W) in [0, 1], as the network sees it.
        overlay: (H, W) in [0, 1], the Grad-CAM map of what the model said; None where the network has no spatial map.
        label, said: what the image is and what the model said, in words.
        score: of what the model said: a probability, or for regression the value.
    """

    arm: str
    row_key: str
    image: np.ndarray
    overlay: np.ndarray | None
    label: str
    said: str
    score: float


def worst_rows(predictions: pd.DataFrame, outputs: Outputs, flagged: set[str], count: int = PER_ARM) -> pd.DataFrame:
    """The most confident errors of each arm, most confident first.

    An image's scores are averaged over the cells of its arm in `predictions`, so hand in one mode and budget. Confidence is the mean
    probability of what was said and is not; for regression it is the distance from the truth. Errors of a binary task are judged at
    the mean threshold.

    Args:
        predictions: as predictions.parquet, with `label` and `score` columns by the kind of task. multilabel: each target's errors
            compete with the others'.
        flagged: row keys of images whose pixels may show text or a face; never among the result.

    Returns:
        Columns arm, row_key, label, said (words), score, output (position into outputs.names of the score that is explained), sign
        (1: the output speaks for what was said, -1: against, as for a negative of a binary task), confidence.
    """
    rows = predictions[~predictions["row_key"].isin(flagged)]
    found = []
    for arm, own in rows.groupby("arm", sort=False):
        errors = _errors(own, outputs).assign(arm=arm)
        found.append(errors.sort_values(["confidence", "row_key"], ascending=[False, True]).head(count))
    columns = ["arm", "row_key", "label", "said", "score", "output", "sign", "confidence"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def _errors(rows: pd.DataFrame, outputs: Outputs) -> pd.DataFrame:
    numbers = [name for name in rows.columns if name.split(".")[0] in ("label", "score", "threshold")]
    mean = rows.groupby("row_key", sort=False)[numbers].mean().reset_index()
    if outputs.kind in ("multiclass", "ordinal"):
        mean = mean[mean["label"].notna()]
        scores = mean[[f"score.{name}" for name in outputs.names]].to_numpy(float)
        said, label = scores.argmax(axis=1), mean["label"].to_numpy(int)
        best = scores[np.arange(len(scores)), said]
        table = _table(mean, np.array(outputs.names)[label], np.array(outputs.names)[said], best, said, 1, best)
        return table[said != label]
    if outputs.kind == "regression":
        label, score = mean["label"].to_numpy(float), mean["score"].to_numpy(float)
        texts = [[f"{value:.3g}" for value in values] for values in (label, score)]
        sign = np.where(score > label, 1, -1)
        table = _table(mean, *map(np.array, texts), score, 0, sign, np.abs(score - label))
        return table[np.isfinite(label)]
    parts = []
    for output, name in enumerate(outputs.names):
        suffix = f".{name}" if outputs.kind == "multilabel" else ""
        parts.append(_two_sided(mean, name, output, suffix))
    return pd.concat(parts, ignore_index=True)


def _two_sided(mean: pd.DataFrame, name: str, output: int, suffix: str) -> pd.DataFrame:
    """The errors of one target with two classes; without an operating point nothing is said, and nothing is wrong."""
    label, score, point = (mean[f"{column}{suffix}"].to_numpy(float) for column in ("label", "score", "threshold"))
    positive = score >= point
    said = np.where(positive, name, f"not {name}")
    confidence = np.where(positive, score, 1 - score)
    truth = np.where(label == 1, name, f"not {name}")
    table = _table(mean, truth, said, confidence, output, np.where(positive, 1, -1), confidence)
    return table[np.isfinite(label) & np.isfinite(point) & (positive != (label == 1))]


def _table(mean, label, said, score, output, sign, confidence) -> pd.DataFrame:
    columns = {"label": label, "said": said, "score": score, "output": output, "sign": sign, "confidence": confidence}
    return pd.DataFrame({"row_key": mean["row_key"].to_numpy(), **columns})


def section(worst: Sequence[WorstImage], images: bool) -> Markup:
    """The errors with their pixels where `images` may leave the machine; else keys and scores alone. Empty without errors."""
    if not worst:
        return Markup("")
    parts = [html.paragraph(_INTRODUCTION)]
    if not images:
        note = f"The images are not part of this page: they stand in {LOCAL} beside it, which stays on the machine that made it."
        parts.append(html.paragraph(note, "note"))
    for arm, own in _by_arm(worst).items():
        shown = _sheet(arm, own) if images else _list(own)
        parts.append(html.section(arm, shown, level=3))
    return html.section("The worst errors", *parts)


def local_page(study: str, worst: Sequence[WorstImage]) -> str:
    """The errors with their pixels as a page of their own, for the machine that made it."""
    head = f"<header><p class='kind'>medssl, images of patients: not to be passed on</p><h1>{html.text(study)}</h1></header>"
    return document(f"{study}: the worst errors", [head, section(worst, images=True)])


_INTRODUCTION = (
    "What each arm was most sure of and wrong about, its scores averaged over the label draws. Beside each image where the evidence "
    "for what was said lies (Grad-CAM, 1610.02391): the brighter, the more. Such a map shows where, not why, and is as coarse as "
    "the network's last layer (2 x 2 points at an input of 64 px). Images that may show text or a face are left out. medssl locate KEY "
    "finds an image on the machine that indexed it."
)


def _by_arm(worst: Sequence[WorstImage]) -> Mapping[str, list[WorstImage]]:
    found: dict[str, list[WorstImage]] = {}
    for image in worst:
        found.setdefault(image.arm, []).append(image)
    return found


def _list(worst: list[WorstImage]) -> Markup:
    rows = [(image.row_key, image.label, image.said, f"{image.score:.3g}") for image in worst]
    return html.table("", ("key", "is", "said", "score"), rows, numbers=[3])


def _sheet(arm: str, worst: list[WorstImage]) -> Markup:
    shown, captions = [], []
    for image in worst:
        lines = (f"is {image.label}, said {image.said} ({image.score:.3g})", image.row_key)
        shown.append(beside(image.image, image.overlay))
        captions.append(lines)
    return Markup(f'<div class="wide">{sheet_html(shown, captions, f"the worst errors of {arm}", largest=WIDTH)}</div>')


def beside(image: np.ndarray, overlay: np.ndarray | None) -> np.ndarray:
    """The image, and right of it the same under its map, (3, H, 2 W) in [0, 1]; black on the right where there is no map."""
    colour = np.broadcast_to(image if image.ndim == 3 else image[None], (3, *image.shape[-2:])).astype(np.float32)
    if overlay is None:
        return np.concatenate([colour, np.zeros_like(colour)], axis=2)
    strength = 0.65 * np.clip(overlay, 0, 1)[None]
    return np.concatenate([colour, colour * (1 - strength) + _heat(np.clip(overlay, 0, 1)) * strength], axis=2)


def _heat(values: np.ndarray) -> np.ndarray:
    """(3, H, W): from deep blue over red to yellow, its brightness growing all the way, so that it reads without colour too."""
    stops = np.linspace(0, 1, 5)
    colours = np.array([[0.0, 0.0, 0.2], [0.35, 0.0, 0.55], [0.85, 0.2, 0.3], [1.0, 0.6, 0.1], [1.0, 1.0, 0.6]])
    return np.stack([np.interp(values, stops, colours[:, channel]) for channel in range(3)]).astype(np.float32)
