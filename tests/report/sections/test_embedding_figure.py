from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from medssl.report.embedding_figure import POINTS, embeddings_of, scatter, section

SVG = "{http://www.w3.org/2000/svg}"


def _made(count: int = 300, **groups):
    rng = np.random.default_rng(0)
    labels = np.array(["normal", "pneumonia"])[np.arange(count) % 2]
    features = rng.normal(size=(count, 5)) + 8 * (np.arange(count) % 2)[:, None]
    return embeddings_of("in_domain", features, labels, groups, np.arange(count))


def _dots(drawing: str) -> list[list[tuple[float, float]]]:
    paths = [path.get("d") for path in ElementTree.fromstring(drawing).iter(f"{SVG}path") if path.get("class") == "dots"]
    return [[(float(x), float(y)) for x, y in re.findall(r"M(\d+) (\d+)h0", path)] for path in paths]


def test_every_point_is_drawn_once_in_its_colour():
    drawing = scatter(_made(), "label")
    normal, pneumonia = _dots(drawing)
    assert len(normal) == len(pneumonia) == 150
    assert max(x for x, _ in normal) < min(x for x, _ in pneumonia) or max(x for x, _ in pneumonia) < min(x for x, _ in normal)
    assert "normal (150)" in drawing


def test_many_images_are_drawn_in_part_and_it_is_said():
    arm = _made(POINTS + 400)
    assert sum(map(len, _dots(scatter(arm, "label")))) == POINTS
    assert "2,000 of 2,400 images drawn at random" in section([arm])


def test_a_vendor_is_told_or_it_is_said_that_there_are_too_few():
    vendors = np.array(["GE", "Siemens"])[np.arange(300) % 2]
    drawn = section([_made(vendor=vendors)])
    row = re.search(r"<tr><th[^>]*>in_domain</th>(.*?)</tr>", drawn)[1]
    assert re.sub(r"<[^>]+>", " ", row).split() == ["vendor", "1.00", "0.50", "GE", "150,", "Siemens", "150"]
    assert "coloured by vendor" in drawn
    alone = section([_made(vendor=["GE"] * 300)])
    assert "No two vendors or sources have enough images" in alone
    assert "coloured by vendor" not in alone
    assert section([]) == ""


def test_rare_and_unknown_names_share_a_grey_and_colours_do_not_change_between_arms():
    names = np.array([*"abcdefgh"])[np.arange(300) % 8].astype(object)
    names[names == "h"] = None
    drawing = scatter(_made(site=names), "site")
    texts = [element.text for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]
    assert any(text.startswith("others (") for text in texts)
    assert any(text.startswith("unknown (") for text in texts)
    kinds = [text.split(" (")[0] for text in texts if " (" in text and not text.startswith("component")]
    assert kinds[:5] == sorted(kinds[:5])
    assert sum(map(len, _dots(drawing))) == 300
