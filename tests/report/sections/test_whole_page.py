from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from medssl.report.extras import Extras
from medssl.report.page import render

KINDS = ("binary", "multiclass", "multilabel", "ordinal", "regression")
VOID = {"meta", "wbr", "br", "img"}


class _Read(HTMLParser):
    """Fails on a tag that is not closed in order; keeps texts, ids, links and sources."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self._keep(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._keep(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def _keep(self, attrs):
        for name, value in attrs:
            {"id": self.ids, "href": self.links, "src": self.sources}.get(name, []).append(value)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_of_every_kind_is_well_formed_and_whole(kind, shown, facts_for):
    page = render(shown(kind)[0], facts_for(kind), shown(kind)[1])
    read = _Read(page)
    # Markup that was escaped by mistake would be read as text.
    assert not re.search(r"</?(td|th|p|div|small|section|table|span|svg)\b", read.text)
    assert "nan" not in re.findall(r"[a-z]+", read.text)
    assert len(read.ids) == len(set(read.ids))
    assert all(link.startswith("#") and link[1:] in read.ids for link in read.links)
    assert all(source.startswith("data:image/") for source in read.sources)
    assert "<script" not in page
    assert "url(" not in page
    assert len(page) < 3_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_drawing_is_valid_xml_and_stays_inside_its_frame(kind, shown, facts_for):
    page = render(shown(kind)[0], facts_for(kind), shown(kind)[1])
    drawings = re.findall(r'<svg class="figure".*?</svg>', page)
    assert len(drawings) > 5
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        _, _, width, height = map(float, root.get("viewBox").split())
        assert "nan" not in drawing
        assert "inf" not in re.findall(r'="([^"]*)"', drawing)
        for element in root.iter():
            for name, most in (("x", width), ("x1", width), ("x2", width), ("y", height), ("y1", height), ("y2", height)):
                if element.get(name) is not None:
                    assert -1 <= float(element.get(name)) <= most + 1, ElementTree.tostring(element)


def test_the_parts_come_in_order_and_are_linked_to(shown, facts_for):
    read = _Read(render(shown()[0], facts_for("binary"), shown()[1]))
    headings = [
        "Which initialisation should this task start from?",
        "Before you rely on this",
        "On this page",
        "Control: BatchNorm recalibrated",
        "Every pair of arms",
        "How many patients it takes",
        "Subgroups",
        "Calibration: can the scores be read as probabilities?",
        "Confusion matrices",
        "What the embeddings are arranged by",
        "The worst errors",
        "All numbers",
        "Every comparison in words",
        "How it was done",
        "To repeat it",
    ]
    places = [read.text.rindex(heading) for heading in headings]
    assert places == sorted(places)
    assert "#every-pair-of-arms" in read.links
    assert "#how-it-was-done" in read.links


def test_without_further_parts_there_is_still_a_page_and_nothing_empty(shown, facts_for):
    read = _Read(render(shown("ordinal")[0], facts_for("ordinal"), Extras()))
    for heading in ("Every pair of arms", "Subgroups", "Calibration: can", "The worst errors", "On this page"):
        assert heading not in read.text
    assert "quadratic kappa" in read.text


def test_of_many_modes_the_first_is_open_and_all_are_there(shown, facts_for):
    page = render(shown()[0], facts_for("binary"), shown()[1])
    folded = re.findall(
        r"<details( open)?><summary>(Linear probe|Full fine-tuning|Linear probe, BatchNorm recalibrated)</summary>", page
    )
    assert {name for state, name in folded if state} == {"Linear probe"}
    assert {name for state, name in folded if not state} == {"Full fine-tuning", "Linear probe, BatchNorm recalibrated"}
    assert "details::details-content" in page  # on paper all of them are shown


def test_lower_is_better_where_it_is(shown, facts_for):
    table, extras = shown("regression")
    page = render(table, facts_for("regression"), extras)
    text = _Read(page).text
    assert "← better" in text
    assert "worse than imagenet →" in text
    assert "mean absolute error (lower is better)" in text
    rows = table[(table["metric"] == "mae") & (table["difference_upper"] < 0) & (table["p_holm"] < 0.05)]
    assert len(rows) > 0
    assert "▲ better" in text
    for row in rows.to_dict("records"):
        assert f"−{abs(row['difference']):.3f}" in text


def test_no_patient_and_no_folder_is_on_the_page(shown, facts_for):
    table, extras = shown(images=True)
    page = render(table, facts_for("binary"), extras)
    assert not re.search(r"patient\d", page)
    assert not re.search(r"/(home|tmp|work|root|mnt)/", page)


def test_names_from_outside_are_escaped_everywhere(shown, facts_for):
    bad, table, extras = '<b>"x"&', *shown()
    facts = facts_for("binary")
    arms = [dataclasses.replace(arm, name=bad) if arm.name == "in_domain" else arm for arm in facts.arms]
    named = {"in_domain": bad}
    changed = dataclasses.replace(
        extras,
        pairs=extras.pairs.replace({"a": named, "b": named}),
        matches=extras.matches.replace({"arm": named}),
        power=extras.power.replace({"arm": named}),
        reliability=extras.reliability.replace({"arm": named, "target": {"pneumonia": bad}}),
        confusion=extras.confusion.replace({"arm": named, "truth": {"positive": bad}, "called": {"positive": bad}}),
        subgroups=extras.subgroups.replace({"arm": named, "group": {"GE": bad}}),
        embeddings=[dataclasses.replace(extras.embeddings[0], arm=bad)],
        worst=[dataclasses.replace(image, arm=bad, label=bad, said=bad) for image in extras.worst],
    )
    page = render(table.replace({"arm": named}), dataclasses.replace(facts, arms=arms), changed)
    assert "<b>" not in page
    assert page.count("&lt;b&gt;") > 30
    _Read(page)


def test_a_table_that_lacks_a_column_is_refused(shown):
    with pytest.raises(ValueError, match="the table of pairs lacks p_holm, verdict"):
        Extras(pairs=shown()[1].pairs.drop(columns=["p_holm", "verdict"]))
