"""An indexed archive as one HTML page: what it holds, what is wrong with it, and what the network will see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from medssl.data.archive import MANIFEST, REJECTS, SPLITS, Archive
from medssl.data.groups import shared_images
from medssl.data.manifest import LABEL_PREFIX, read_table
from medssl.data.store import Store
from medssl.files import write_atomic
from medssl.report import archive_checks, archive_counts, html
from medssl.report.archive_figures import histogram
from medssl.report.archive_sample import draw, histograms, is_flagged, views
from medssl.report.contact_sheet import sheet_html
from medssl.report.document import document
from medssl.report.html import Markup
from medssl.seeds import numpy_generator

COLUMNS = (
    "row_key", "source", "patient", "patient_from", "study", "kind", "laterality", "view", "modality", "vendor", "rows", "columns",
    "depth", "channels", "spacing_row", "slope", "full_low", "full_high", "window_center", "window_width", "window_function", "lut",
    "inverted", "padding", "p00_5", "p99_5", "syntax", "decoder", "burned_in", "flags", "study_year", "age", "sex", "store_shard",
    "store_row", "mask_shard", "store_slope", "store_intercept", "box_y0", "box_x0", "box_y1", "box_x1",
)  # fmt: skip
"""Columns of the manifest that the page needs, besides the labels."""

DRAWN = 48
_LOCATE = Markup(
    "<p>On the machine that indexed the archive <code>medssl locate KEY --config STUDY.yaml</code> names the file behind a key "
    "of this page.</p>"
)
_MARKS = {"wrong": "✗ wrong", "look": "! look", "fine": "✓ fine"}
_SPLITS = {
    "train": "training pool",
    "removed": "removed from training",
    "archive": "other data sets (pretraining only)",
}
_EXCLUDED = {
    "held_out_patient": "images of validation and test patients",
    "identical_to_held_out": "images identical to one of validation or test",
    "near_held_out": "images nearly identical to one of validation or test",
    "linked_to_held_out": "images of patients who share an image with a validation or test patient",
}


def write_archive_page(path: Path, archive: Archive, **settings) -> None:
    """Write the page of an archive to `path`; its tables are read from its folders, the columns that are needed.

    `settings` are the other arguments of `render`: study, input_size, window_rule, seed, synthetic.

    Raises:
        StoreError: a table is missing or damaged, or the page cannot be written.
    """
    table = archive.folder / MANIFEST
    manifest = read_table(table, list(COLUMNS))
    labels = [name for name in pq.read_schema(table).names if name.startswith(LABEL_PREFIX)]
    manifest = manifest.join(read_table(table, labels))
    splits = read_table(archive.splits_folder / SPLITS, ["patient", "group", "split", "label", "pretrain", "excluded"])
    rejects = read_table(archive.folder / REJECTS)
    shared = shared_images(manifest.join(read_table(table, ["exact_hash"])), archive.near, splits)
    page = render(manifest, splits, rejects, archive.store, data_digest=archive.data_digest, shared=shared, **settings)
    write_atomic(path, page)


def render(
    manifest: pd.DataFrame,
    splits: pd.DataFrame,
    rejects: pd.DataFrame,
    store: Store,
    *,
    data_digest: str,
    study: str,
    input_size: int,
    window_rule: str,
    seed: int,
    shared: pd.DataFrame | None = None,
    synthetic: bool = False,
) -> str:
    """The page as a string: a function of its arguments, the same for the same archive.

    It holds keys, counts and images of patients, no identifier and no folder. Images that may show text or a face are not
    drawn. Pixels of a few hundred images are read, whatever the size of the archive.

    Args:
        manifest: COLUMNS of the manifest and its labels.
        splits: the splits table, in the manifest's order.
        rejects: what was set aside; see manifest.REJECT_COLUMNS.
        store: the pixels.
        data_digest: of the archive; its first 16 digits are printed.
        study: its name.
        input_size: side of the encoder's input, px.
        window_rule: auto, percentile or full; see `batches.choose_windows`.
        seed: the study's; it chooses the images.
        shared: images that stand in the archive more than once; see `groups.shared_images`. None: they were not looked for.
        synthetic: the images are made, not of patients.
    """
    flagged = is_flagged(manifest).to_numpy()
    odd = archive_checks.oddities(manifest, store.size, window_rule)
    checks = archive_checks.checks(manifest, splits, rejects, odd, shared, int(flagged.sum()))
    facts = {
        "data": data_digest[:16],
        "store": f"{store.size} px",
        "input": f"{input_size} px",
        "window rule": window_rule,
        "seed": str(seed),
    }
    body = [
        _head(manifest, study, synthetic),
        _figures(manifest, rejects),
        _checks(checks),
        _splits(splits),
        html.section("Labels", archive_counts.labels(manifest, splits)),
        _sheet(store, manifest, flagged, input_size, window_rule, seed),
        _values(store, manifest, window_rule, seed),
        html.section("What the archive holds", archive_counts.tables(manifest, window_rule)),
        html.section("Files that were set aside", _LOCATE, archive_checks.reject_table(rejects)),
        html.section("Images to look at", archive_checks.oddity_table(manifest, odd)),
        html.section("Identical and nearly identical images", archive_checks.shared_table(shared)),
        html.section("Patients under two keys", archive_checks.linked_table(splits)),
        html.section("To repeat it", html.pairs(facts, code=True)),
    ]
    return document(f"{study}: the archive", body, ("page.css", "archive.css"))


def _head(manifest: pd.DataFrame, study: str, synthetic: bool) -> Markup:
    made = "The images are made, not of patients: they show how the tool works and say nothing about medicine. "
    shown = "This page shows images of patients: keep it where the archive itself may be kept. "
    names = ", ".join(map(str, sorted(manifest["source"].unique())))
    lead = f"{made if synthetic else shown}Data sets: {names}."
    return Markup(
        f"<header>{html.paragraph('medssl archive', 'kind')}<h1>{html.text(study)}</h1>{html.paragraph(lead, 'lead')}</header>"
    )


def _figures(manifest: pd.DataFrame, rejects: pd.DataFrame) -> Markup:
    volumes = int(manifest["kind"].eq("volume").sum())
    years = manifest["study_year"].dropna()
    span = "unknown" if years.empty else "–".join(dict.fromkeys(str(int(year)) for year in (years.min(), years.max())))
    studies = manifest["study"].nunique()
    figures = {
        "images": f"{len(manifest) - volumes:,}",
        "volumes": f"{volumes:,}",
        "patients": f"{manifest['patient'].nunique():,}",
        "studies": f"{studies:,}" if studies else "unknown",
        "years of study": span,
        "data sets": f"{manifest['source'].nunique():,}",
        "files set aside": f"{len(rejects):,}",
    }
    if not volumes:
        del figures["volumes"]
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items())
    return Markup(f'<dl class="headline">{cells}</dl>')


def _checks(checks: list[archive_checks.Check]) -> Markup:
    items = "".join(
        f'<li class="{verdict}"><strong>{_MARKS[verdict]}</strong><span>{html.text(said)}</span></li>' for verdict, said in checks
    )
    return Markup(f'<section class="answer"><h2>What is right and what is wrong</h2><ul class="checks">{items}</ul></section>')


def _splits(splits: pd.DataFrame) -> Markup:
    rows = []
    for name in archive_counts.SPLITS:
        part = splits[splits["split"] == name]
        if len(part):
            numbers = (part["patient"].nunique(), len(part), int(part["label"].notna().sum()), int(part["pretrain"].sum()))
            rows.append((_SPLITS.get(name, name), *(f"{number:,}" for number in numbers)))
    headings = ("split", "patients", "images", "labelled for the task", "pretraining sees")
    parts = [html.table("Every image is in one split", headings, rows, numbers=range(1, 5))]
    kept = splits["excluded"].dropna().value_counts()
    if len(kept):
        rows = [(_EXCLUDED.get(reason, reason), f"{count:,}") for reason, count in kept.items()]
        parts.append(html.table("Kept from pretraining", ("why", "images"), rows, numbers=[1]))
    return html.section("Splits", *parts)


def _sheet(store: Store, manifest: pd.DataFrame, flagged: np.ndarray, input_size: int, window_rule: str, seed: int) -> Markup:
    rows = draw(manifest, np.flatnonzero(~flagged), DRAWN, numpy_generator(seed, "archive_page", "sheet"))
    left_out = (
        f" Left out: {archive_checks.several(int(flagged.sum()), 'image')} that may show text or a face." if flagged.any() else ""
    )
    if not len(rows):
        return html.section("As the network sees them", html.paragraph(f"There is no image to draw.{left_out}"))
    about = manifest.iloc[rows]
    said = (
        f"{len(rows)} images, drawn at random in turn over data sets, modalities and vendors, in the view of evaluation: the whole "
        f"image at {input_size} × {input_size} px by the window rule “{window_rule}”, padded to a square.{left_out}"
    )
    if about["kind"].eq("volume").any():
        said += " Of a volume the middle axial slice is shown."
    captions = [_caption(row) for row in about.to_dict("records")]
    sheet = sheet_html(views(store, manifest, rows, input_size, window_rule), captions, "Random images of the archive")
    return html.section("As the network sees them", html.paragraph(said), sheet)


def _caption(row: dict) -> list[str]:
    words = [row[name] for name in ("modality", "view", "vendor") if isinstance(row[name], str)]
    return [" ".join([*words, *(["volume"] if row["kind"] == "volume" else [])]), row["source"], row["row_key"]]


def _values(store: Store, manifest: pd.DataFrame, window_rule: str, seed: int) -> Markup:
    figures = []
    for found in histograms(store, manifest, window_rule, numpy_generator(seed, "archive_page", "histograms")):
        count = sum(found.counts.values())
        said = archive_checks.several(count, "volume" if found.kind == "volume" else "image")
        if found.outside >= 0.0005:
            said += f"; {archive_counts.percent(found.outside)} of the pixels lie outside of the axis"
        figures.append(html.figure(histogram(found), f"{said}."))
    text = (
        "How often each value occurs in a random sample, without padding, by vendor; every image counts the same and the scale "
        "of the shares is that of their root. Dashed: the medians of where the windows begin and end. What lies outside of its "
        "window a network sees as black or white. Vendors whose curves lie apart are told apart by a network that should not."
    )
    panels = Markup(f'<div class="panels">{"".join(figures)}</div>')
    return html.section("Pixel values", html.paragraph(text), panels, archive_counts.window_table(manifest, window_rule))
