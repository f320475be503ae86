from __future__ import annotations

from rich.console import Console

from medssl.report.table import markdown, screen


def _printed(comparison) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(screen(comparison))
    return console.export_text()


def test_the_screen_table_fits_a_hundred_columns(make):
    text = _printed(make(arms=("random", "imagenet", "imagenet_in_domain")))
    assert max(map(len, text.splitlines())) <= 100
    rows = [line.split() for line in text.splitlines() if "imagenet_in_domain" in line]
    assert len(rows) == 4  # no name is folded, no number cut: two modes, two budgets
    assert "…" not in text


def test_every_row_has_its_interval_and_its_difference(comparison):
    text = _printed(comparison)
    row = comparison[(comparison.metric == "auroc") & (comparison.arm == "in_domain")].iloc[0]
    assert f"{row.value:.3f} [{row.lower:.3f}, {row.upper:.3f}]" in text
    assert f"+{row.difference:.3f} [{row.difference_lower:.3f}, {row.difference_upper:.3f}]" in text
    assert text.count("reference") == 4


def test_markdown_is_one_table_of_equal_rows(comparison):
    lines = markdown(comparison).splitlines()
    assert len(lines) == 2 + 2 * 2 * 3
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| linear | 40 | random | 0.")


def test_markdown_escapes_the_column_sign(make):
    lines = markdown(make(arms=("imagenet", "a|b"))).splitlines()
    assert "a\\|b" in lines[3]
