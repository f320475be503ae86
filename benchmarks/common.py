"""What the benchmarks share: made-up data, versions, and results as JSON and as a Markdown table."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any


def best_of(times: int, call: Callable[[], Any]) -> float:
    """Seconds of the fastest of several calls: what else the machine does only ever adds."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def machine(packages: Sequence[str]) -> dict[str, str]:
    """Where and with what was measured."""
    found = {"date": date.today().isoformat(), "cores": str(os.cpu_count()), "machine": platform.machine()}
    found["python"] = platform.python_version()
    return found | {name: metadata.version(name) for name in packages}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table; columns are those of the first row."""
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(str(row.get(name, "")) for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def report(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print a table."""
    print(f"\n### {title}\n\n{table(rows)}", flush=True)


def save(path: Path, results: dict[str, Any]) -> None:
    """Write all results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten: {path}")
