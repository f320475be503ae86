from __future__ import annotations

import pytest
from rich.console import Console

from medssl.report.table import markdown, points_of, screen


def _printed(table) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(screen(table))
    return console.export_text()


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "ordinal", "regression"])
def test_the_screen_table_of_every_kind_fits_a_hundred_columns(kind, shown):
    table = shown(kind)[0]
    text = _printed(table)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    rows = [line.split() for line in text.splitlines() if "imagenet_in_domain" in line]
    assert len(rows) == 3 * table["mode"].nunique()  # budgets
    lines = markdown(table).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 3 * 4 * table["mode"].nunique()


def test_the_primary_metric_leads_and_its_direction_is_said(shown):
    text = _printed(shown("regression")[0])
    assert "MAE: mean absolute error, lower is better" in text
    assert [metric.short for metric in points_of(shown("regression")[0])] == ["RMSE", "R²", "r"]
    assert "lower is better" not in _printed(shown("ordinal")[0])
    assert markdown(shown("ordinal")[0]).splitlines()[0].startswith("| mode | labelled patients | arm | QWK | difference |")
