"""A folder for the marks of jobs, and the module of jobs where children find it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def jobs(monkeypatch):
    """The module of jobs, under a name that child processes can import too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "importable"))
    import grid_jobs

    return grid_jobs


@pytest.fixture
def context(jobs, tmp_path):
    return jobs.Folder(tmp_path)


@pytest.fixture
def count(tmp_path):
    """count(ending) -> {key: how many lines its mark has}."""

    def lines(ending: str) -> dict[str, int]:
        return {path.stem: len(path.read_text().split()) for path in tmp_path.glob(f"*.{ending}")}

    return lines
