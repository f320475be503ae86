"""What an archive holds, counted: small tables with bars, each from one pass over a column of the manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from medssl.data.batches import choose_windows
from medssl.data.manifest import LABEL_PREFIX, targets_of
from medssl.report import html
from medssl.report.html import Markup, Row

MOST = 10  # values that a table names; the others stand together
CLASSES = 20  # classes that the table of labels names of one target
UNKNOWN = "not in the file"
SPLITS = ("train", "validation", "test", "removed", "archive")

_WINDOWS = {
    "file": "the file's window",
    "lut": "the file's VOI LUT",
    "full": "full range of the bit depth",
    "percentile": "percentiles 0.5 to 99.5",
    "colour": "none: colour",
}
_PATIENTS = {"id": "patient ID", "study": "study, the ID being empty", "image": "no patient known"}
_LATERALITY = {"L": "left", "R": "right", "B": "both", "U": "unpaired"}
_SEX = {"F": "female", "M": "male", "O": "other"}
_SPACINGS = (0, 0.001, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, np.inf)


class Tally(NamedTuple):
    """A column, counted: (value, rows) in the order of the table; `unknown` rows have none."""

    title: str
    counts: list[tuple[str, int]]
    unknown: int = 0


def tables(manifest: pd.DataFrame, window_rule: str) -> Markup:
    """All tables of counts, and a sentence on what no file says."""
    tallies = [
        *_what(manifest),
        *_who(manifest),
        *_pixels(manifest),
        *_shown(manifest, window_rule),
    ]
    known = [tally for tally in tallies if tally.counts]
    silent = [tally.title[0].lower() + tally.title[1:] for tally in tallies if not tally.counts]
    parts = [Markup(f'<div class="cards">{"".join(_table(tally, len(manifest)) for tally in known)}</div>')]
    parts.insert(0, html.paragraph("Images, and their share of all.", "note"))
    if silent:
        parts.append(html.paragraph(f"Not in any file: {', '.join(silent)}.", "note"))
    return Markup("".join([*parts, _decoders(manifest)]))


def _table(tally: Tally, total: int) -> Markup:
    def row(name: str, count: int, kind: str = "") -> Row:
        share = count / total
        bar = Markup(f'<span class="share"><span style="width:{100 * share:.1f}%"></span></span>')
        return Row((name, bar, f"{count:,}", percent(share)), kind)

    rows = [row(*pair) for pair in tally.counts]
    if tally.unknown:
        rows.append(row(UNKNOWN, tally.unknown, "unknown"))
    return Markup(f'<div class="card">{html.table(tally.title, [""] * 4, rows, numbers=[2, 3])}</div>')


def percent(share: float) -> str:
    """'37%', '<1%' or '>99%': never 0% of something or 100% of less than all."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def tally(title: str, values: pd.Series, names: dict[str, str] | None = None, *, most: int = MOST) -> Tally:
    """The most frequent values first; those beyond `most` stand in one row."""
    counts = values.value_counts()
    found = [((names or {}).get(value, str(value)), int(count)) for value, count in counts.items() if count]
    if len(found) > most + 1:
        rest = found[most:]
        found = [*found[:most], (f"{len(rest):,} others", sum(count for _, count in rest))]
    return Tally(title, found, int(len(values) - counts.sum()))


def _ordered(title: str, values: pd.Series, names: dict[float, str]) -> Tally:
    """Numbers in the order of `names`; a value without rows is left out."""
    counts = values.value_counts()
    return Tally(title, [(name, int(counts[key])) for key, name in names.items() if key in counts], int(values.isna().sum()))


def _what(manifest: pd.DataFrame) -> list[Tally]:
    found = [tally("Data set", manifest["source"])]
    if manifest["kind"].eq("volume").any():
        found.append(tally("Kind", manifest["kind"]))
    masked = manifest["mask_shard"].notna()
    if masked.any():
        found.append(
            Tally("Label map", [("with", int(masked.sum())), ("without", int((~masked).sum()))][: 1 + int(not masked.all())])
        )
    return [
        *found,
        tally("Modality", manifest["modality"]),
        tally("View", manifest["view"]),
        tally("Laterality", manifest["laterality"], _LATERALITY),
        tally("Vendor", manifest["vendor"]),
        _years(manifest["study_year"]),
    ]


def _who(manifest: pd.DataFrame) -> list[Tally]:
    decades = manifest["age"] // 10 * 10
    names = {decade: f"{decade} to {decade + 9}" for decade in range(0, 90, 10)} | {90: "90 and over"}
    return [
        tally("Sex", manifest["sex"], _SEX),
        _ordered("Age, years", decades, names),
        tally("Patient known from", manifest["patient_from"], _PATIENTS),
    ]


def _pixels(manifest: pd.DataFrame) -> list[Tally]:
    found = [
        _sizes(manifest),
        tally("Channels and bits", _depths(manifest)),
        _spacings(manifest["spacing_row"]),
    ]
    if manifest["depth"].notna().any():
        found.insert(1, _slices(manifest.loc[manifest["depth"].notna(), "depth"]))
    return found


def _decoders(manifest: pd.DataFrame) -> Markup:
    counts = manifest.groupby(["syntax", "decoder"], dropna=False).size().sort_values(ascending=False, kind="stable")
    rows = [(syntax, decoder, f"{count:,}", percent(count / len(manifest))) for (syntax, decoder), count in counts.items()]
    headings = ("transfer syntax or format", "decoder", "images", "share")
    return html.table("How the files are packed, and what decoded them", headings, rows, numbers=[2, 3], kind="syntax")


def _shown(manifest: pd.DataFrame, window_rule: str) -> list[Tally]:
    edges = (-1, 0, 0.1, 0.5, 1)
    padding = pd.Series(np.digitize(manifest["padding"].fillna(0), edges, right=True), index=manifest.index)
    flags: dict[str, int] = {"none": int(manifest["flags"].fillna("").eq("").sum())}
    for together, count in manifest["flags"].value_counts().items():
        for flag in re.findall(r"[a-z_]+", together):
            flags[flag] = flags.get(flag, 0) + int(count)
    return [
        tally("Window", windows_used(manifest, window_rule), _WINDOWS),
        tally("High values are shown", manifest["inverted"].map({True: "dark (inverted)", False: "bright"})),
        _ordered("Padding, share of the pixels", padding, {1: "none", 2: "up to 10%", 3: "10% to 50%", 4: "more than half"}),
        Tally("May show text or a face", [(name.replace("_", " "), count) for name, count in flags.items() if count]),
    ]


def windows_used(manifest: pd.DataFrame, window_rule: str) -> pd.Series:
    """(N,) which window each row is shown by: file, lut, full, percentile or colour (none)."""
    windows = choose_windows(manifest, window_rule)
    used = windows["source"].mask(windows["source"].eq("file") & windows["function"].eq("lut"), "lut")
    return used.mask(manifest["channels"].eq(3), "colour")


def _years(years: pd.Series) -> Tally:
    known = years.dropna()
    if known.nunique() <= 12:
        return _ordered("Study year", years, {year: str(int(year)) for year in np.sort(known.unique())})
    step = 5 if known.max() - known.min() < 60 else 10
    starts = known // step * step
    names = {start: f"{int(start)} to {int(start) + step - 1}" for start in np.sort(starts.unique())}
    return _ordered("Study year", years // step * step, names)


def _sizes(manifest: pd.DataFrame) -> Tally:
    """The most frequent sizes by name; the others by their longer side, in powers of two."""
    counts = manifest.groupby(["rows", "columns"]).size().sort_values(ascending=False)
    named = counts.head(MOST if len(counts) <= MOST + 1 else 6)
    found = [(f"{rows:,} × {columns:,}", int(count)) for (rows, columns), count in named.items()]
    rest = counts.iloc[len(named) :]
    if len(rest):
        longer = np.maximum(rest.index.get_level_values(0), rest.index.get_level_values(1)).to_numpy()
        power = np.frexp(longer)[1]  # 2^(p - 1) <= longer < 2^p
        for p, count in rest.groupby(power).sum().items():
            found.append((f"others, longer side {2 ** (p - 1):,} to {2**p - 1:,}", int(count)))
    return Tally("Rows × columns, px", found)


def _slices(depth: pd.Series) -> Tally:
    power = np.frexp(depth.to_numpy(float))[1]
    names = {p: f"{2 ** (p - 1):,} to {2**p - 1:,}" for p in sorted(set(power.tolist()))}
    return _ordered("Slices of volumes", pd.Series(power), names)


def _depths(manifest: pd.DataFrame) -> pd.Series:
    slope = manifest["slope"].abs().replace(0, np.nan)
    bits = np.ceil(np.log2((manifest["full_high"] - manifest["full_low"]) / slope + 1) - 1e-9)
    number = bits.astype("Int64").astype("string")
    colour = manifest["channels"].eq(3)
    return number.radd(np.where(colour, "colour, ", "grey, ")).add(np.where(colour, " bit a channel", " bit"))


def _spacings(spacing: pd.Series) -> Tally:
    names = {1: "less than 0.001"}
    for i in range(2, len(_SPACINGS) - 1):
        names[i] = f"{_SPACINGS[i - 1]:g} to {_SPACINGS[i]:g}"
    names[len(_SPACINGS) - 1] = f"more than {_SPACINGS[-2]:g}"
    bins = pd.Series(np.digitize(spacing, _SPACINGS), index=spacing.index).where(spacing.notna())
    return _ordered("Distance between rows, mm", bins, names)


def window_table(manifest: pd.DataFrame, window_rule: str) -> Markup:
    """Centre and width of the windows by modality and rule, as median and middle nine tenths."""
    windows = choose_windows(manifest, window_rule)
    windows["used"], windows["modality"] = windows_used(manifest, window_rule), manifest["modality"]
    windows = windows[windows["used"] != "colour"]
    rows = []
    for (modality, used), part in windows.groupby(["modality", "used"], dropna=False):
        name = modality if isinstance(modality, str) else UNKNOWN
        rows.append((name, _WINDOWS[used], f"{len(part):,}", _spread(part["center"]), _spread(part["width"])))
    headings = ("modality", "window", "images", "centre", "width")
    caption = f"Windows by the rule “{window_rule}”, in units: median, and below it what nine tenths lie between"
    return html.table(caption, headings, rows, numbers=[2, 3, 4]) if rows else Markup("")


def _spread(values: pd.Series) -> Markup:
    low, middle, high = (f"{value:,.5g}".replace("-", "−") for value in values.quantile([0.05, 0.5, 0.95]))
    return Markup(middle if low == high else f"{middle}<small>{low} to {high}</small>")


def labels(manifest: pd.DataFrame, splits: pd.DataFrame) -> Markup:
    """Images and patients of each class of each target, by split, over the data sets that have the target."""
    present = [name for name in SPLITS if splits["split"].eq(name).any()]
    rows: list[tuple[str, ...]] = []
    for target in targets_of(manifest):
        values = manifest[f"{LABEL_PREFIX}{target}"]
        sources = manifest.loc[values.notna(), "source"].unique()
        if len(sources):
            own = manifest["source"].isin(sources).to_numpy()
            rows.append((f"{target} (of {', '.join(map(str, sources))})",))
            rows += _classes(values[own], manifest.loc[own, "patient"], splits.loc[own, "split"], present)
    if not rows:
        return html.paragraph("No image has a label.")
    headings = ("class", "images", "share", "patients", *(f"in {name}" for name in present))
    return html.table("Images by class; a patient with images of two classes counts in both", headings, rows, numbers=range(1, 9))


def _classes(values: pd.Series, patients: pd.Series, split: pd.Series, present: list[str]) -> Iterable[tuple[str, ...]]:
    counts = values.value_counts()
    if len(counts) > CLASSES:
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.notna().sum() == counts.sum():
            named = numbers.notna().map({True: f"numbers from {numbers.min():g} to {numbers.max():g}"})
        else:
            named = values.where(values.isin(counts.index[:CLASSES]) | values.isna(), f"{len(counts) - CLASSES:,} other classes")
    else:
        named = values
    named = named.fillna("unknown")
    images, people = named.value_counts(), patients.groupby(named).nunique()
    where = pd.crosstab(named, split)
    order = [name for name in images.index if name != "unknown"] + ["unknown"] * ("unknown" in images)
    for name in order:
        inside = (f"{int(where.loc[name].get(part, 0)):,}" for part in present)
        yield (str(name), f"{images[name]:,}", percent(images[name] / len(named)), f"{people[name]:,}", *inside)
