from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from medssl.report.facts import ArmFacts
from medssl.report.page import render

VOID = {"meta", "wbr", "br"}


class _Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def _parsed(page: str) -> _Balance:
    parser = _Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def _text(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(_parsed(page).text))


def test_the_page_is_well_formed_and_needs_nothing_from_outside(comparison, facts):
    page = render(comparison, facts)
    parsed = _parsed(page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert not {name for name, _ in parsed.attributes} & {"src", "onload", "onclick"}
    assert re.findall(r"https?://\S+?[\"' ]", page.replace("http://www.w3.org/2000/svg", "")) == []


def test_the_answer_stands_before_everything_else(comparison, facts):
    text = _text(render(comparison, facts))
    order = [
        "Which initialisation should this task start from?",
        "Before you rely on this",
        "Linear probe: AUROC by number of labelled patients",
        "All numbers",
        "Every comparison in words",
        "How it was done",
        "To repeat it",
    ]
    places = [text.index(heading) for heading in order]
    assert places == sorted(places)


def test_the_page_says_how_it_was_done(comparison, facts):
    text = _text(render(comparison, facts))
    for expected in (
        "80/20; cross-validated inside the budget below 100 patients",
        "95% intervals from 100 bootstrap replicates",
        "each with all their images",
        "for this one pretraining run",
        "timm/tf_efficientnet_lite0",
        "sha256 99b1",
        "1,824,000",
        "61.3 of 512",
        "test patients left out of pretraining (832)",
        "The test labels were scored once.",
        "2 label draws",
        "40.0%",
    ):
        assert expected in text
    assert "duplicates (0)" not in text


def test_warnings_come_with_the_facts(comparison, facts):
    plain = _text(render(comparison, facts))
    assert "Synthetic data." not in plain
    assert "ransductive" not in plain
    warned = _text(
        render(comparison, dataclasses.replace(facts, synthetic=True, transductive=True, test_reads=3, notes=["One vendor."]))
    )
    assert "Synthetic data. The images are made, not of patients" in warned
    assert "Transductive. Pretraining saw the images" in warned
    assert "whose labels no training has seen" in warned
    assert "scored 3 times" in warned
    assert "One vendor." in warned


def test_everything_from_outside_is_escaped(make, facts):
    bad = '<img src=x onerror="alert(1)">&'
    arms = [*facts.arms, ArmFacts(bad, bad, bad, weights=bad)]
    changed = dataclasses.replace(
        facts, study=bad, target=bad, positive_class=bad, arms=arms, notes=[bad], encoder={bad: bad}, digests={bad: bad}
    )
    page = render(make(arms=("imagenet", bad)), changed)
    assert "<img" not in page
    _parsed(page)
    assert bad in _text(page).replace("  ", " ")


def test_no_word_of_significance_and_no_key_of_an_image(comparison, facts):
    page = render(comparison, facts)
    assert "significant" not in page.lower()
    assert "key1" not in page


def test_tables_and_figures_can_scroll_by_keyboard(comparison, facts):
    page = render(comparison, facts)
    assert page.count('<div class="scroll" tabindex="0" role="region" aria-label=') == page.count('class="scroll"')
    assert len(re.findall(r"<table", page)) + page.count("<figure>") == page.count('class="scroll"')


def test_light_dark_and_paper(comparison, facts):
    page = render(comparison, facts)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "width=device-width" in page


def test_a_single_arm_and_a_tiny_test_set_still_make_a_page(make, facts):
    alone = _text(render(make(arms=("imagenet",), modes=("linear",), budgets=(("40", 40),)), facts))
    assert "imagenet has no arm to be compared with" in alone
    tiny = _text(render(make(patients=12), facts))
    assert "test set too small" in tiny
    assert "▲ better" not in tiny


def test_an_arm_that_the_facts_leave_out_is_refused(comparison, facts):
    with pytest.raises(ValueError, match="do not describe the arms in_domain"):
        render(comparison, dataclasses.replace(facts, arms=facts.arms[:2]))
