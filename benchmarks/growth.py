"""What `medssl pretrain` costs before its first step, and what memory it holds, as the archive grows.

    python benchmarks/growth.py [--rows 1000 100000 1000000] [--steps 300] [--rounds 2] [--data FOLDER] [--out FOLDER]

1,000 images are indexed; larger archives are made of theirs by writing manifest and shards many times over, with keys, patients and
hashes of their own, as `medssl index` would have left them. Splits and everything after them are the command's own. "first step" is
the time from starting the command to the log of its first step, where index and splits are there. Memory is what the process has to
itself (RssAnon); pages of the store that it shares with the system's cache are not its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from common import machine, report, save
from million_rows import hex_keys
from step import follow, medssl

BASE, SIDE = 1000, 32  # images that are indexed; their side in px
LATER = 3.0  # seconds that the first step over the most images may come later than over the fewest


def make_base(folder: Path) -> Path:
    """A study of BASE labelled images, indexed; its file."""
    from PIL import Image

    images, study = folder / "images", folder / "study.yaml"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(BASE):
        pixels = rng.integers(0, 255, (SIDE, SIDE)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"p{number // 4:04}_{number:04}_{'no' if number // 4 % 2 else 'yes'}.png")
    card = {
        "version": 1, "name": "many", "title": "Made-up images", "source": "benchmarks/growth.py", "licence": "CC0",
        "citation": "none", "obtain": "made by the benchmark", "modality": "CR", "format": "raster",
        "patient": [{"pattern": r"(?P<value>p\d+)_"}], "synthetic": True,
        "targets": {
            "finding": {
                "description": "made up", "classes": {"no": ["no"], "yes": ["yes"]}, "source": [{"pattern": "(?P<value>no|yes)"}],
            }
        },
    }  # fmt: skip
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    settings = {
        "version": 1, "name": "growth", "work_dir": str(folder / "work"),
        "data": {"many": {"card": str(folder / "card.yaml"), "root": str(images)}},
        "task": {"kind": "binary", "data": "many", "target": "finding", "positive": "yes"},
        "store": {"size": SIDE},
        "encoder": {"backbone": "resnet18", "input_size": SIDE},
        "evaluate": {"reference": "in_domain"},
        "arms": {"in_domain": {"init": "random", "method": "simsiam"}},
        "pretrain": {
            "method": {"name": "simsiam"}, "views": {"policy": "plain"}, "batch_size": 64, "epochs": 1000, "log_every_steps": 1,
            "optimizer": {"base_lr": 0.05}, "checkpoint": {"every": "10min"},
        },
    }  # fmt: skip
    study.write_text(yaml.safe_dump(settings))
    subprocess.run(medssl("index", "--config", str(study)), check=True, stdout=subprocess.DEVNULL)
    return study


def grow(base: Path, folder: Path, rows: int) -> Path:
    """The study of `rows` images: the base's archive `rows / BASE` times over."""
    from medssl.data import manifest as tables
    from medssl.data.archive import MANIFEST, SUMMARY
    from medssl.data.store import write_store

    times = rows // BASE
    folder.mkdir(parents=True)
    for name in ("private", "archive", "pixels"):
        shutil.copytree(base.parent / "work" / name, folder / "work" / name)
    study = folder / "study.yaml"
    study.write_text(base.read_text().replace(str(base.parent / "work"), str(folder / "work")))
    archive = folder / "work" / "archive"
    if times == 1:
        return study
    schema = tables.schema_of(tables.COLUMNS, ["finding"])
    one = pd.read_parquet(archive / MANIFEST)
    many = pd.concat([one] * times, ignore_index=True)
    rng, copy = np.random.default_rng(1), np.arange(rows) // BASE
    many["row_key"], many["exact_hash"] = hex_keys(rng, rows, 16), hex_keys(rng, rows, 64)
    many["patient"] = [f"{number:04x}{patient[4:]}" for number, patient in zip(copy, many["patient"], strict=True)]
    store = json.loads((archive / "store" / "store.json").read_text())
    used = np.array([shard["rows"] for shard in store["shards"]])
    many["store_row"] += copy * used[many["store_shard"]]
    tables.write_table(archive / MANIFEST, many, schema)
    pixels = folder / "work" / "pixels"
    for shard in store["shards"]:
        content = (pixels / shard["file"]).read_bytes()
        with (pixels / shard["file"]).open("wb") as file:
            for _ in range(times):
                file.write(content)
    shards = {shard["file"]: shard["rows"] * times for shard in store["shards"]}
    write_store(archive / "store", pixels, SIDE, shards, {"data": hashlib.sha256(str(rows).encode()).hexdigest()})
    for name, changes in (
        (SUMMARY, {"images": rows, "patients": int(many["patient"].nunique()), "data_digest": f"{rows:x}".zfill(64)}),
        ("receipt.json", {"facts": {"files": rows, "made": time.strftime("%Y-%m-%d %H:%M")}}),
    ):
        content = json.loads((archive / name).read_text())
        (archive / name).write_text(json.dumps(content | changes))
    return study


def started(study: Path, steps: int) -> dict[str, float]:
    """Seconds to the first step's log, and memory (MiB) then and `steps` later."""
    work = study.parent / "work"
    for name in ("pretrain", "tracking"):
        shutil.rmtree(work / name, ignore_errors=True)
    text = study.parent / "pretrain.txt"
    with text.open("w") as out:
        began = time.time()
        process = subprocess.Popen(medssl("pretrain", "--config", str(study)), stdout=out, stderr=subprocess.STDOUT)
        try:
            first = follow(process, work, 1, text)[1]["time/unix_ms"] / 1000 - began
            follow(process, work, max(2, steps // 10), text)
            early = own_memory(process.pid)
            follow(process, work, steps, text)
            late = own_memory(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return {"first": first, "early": early, "late": late}


def own_memory(pid: int) -> float:
    """MiB that a process holds and shares with no file."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[BASE, 100 * BASE, 1000 * BASE], help=f"multiples of {BASE}")
    parser.add_argument("--steps", type=int, default=300, help="that memory is watched over")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("benchmarks/results/growth"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    folder = given.data.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.pop("MEDSSL_DATA", None)
    results = {"machine": machine(["torch", "mlflow", "pandas", "pyarrow"])}
    print(json.dumps(results["machine"]), flush=True)
    base, rows = make_base(folder / "base"), []
    for count in given.rows:
        study = grow(base, folder / f"rows-{count}", count)
        splits = started(study, 2)["first"]
        found = min((started(study, given.steps) for _ in range(given.rounds)), key=lambda one: one["first"])
        rows.append(
            {
                "images": f"{count:,}",
                "first step, s": round(found["first"], 1),
                "later than over the fewest, s": round(found["first"] - rows[0]["_first"], 1) if rows else "",
                "asked": LATER if rows else "",
                "first step where splits are to be made, s": round(splits, 1),
                f"memory after {max(2, given.steps // 10)} steps, MiB": round(found["early"]),
                f"after {given.steps}": round(found["late"]),
                "_first": found["first"],
            }
        )
        shutil.rmtree(study.parent, ignore_errors=True)
        report("Growth of the archive", [{name: value for name, value in row.items() if name != "_first"} for row in rows])
    results["growth"] = rows
    save(given.out / "growth.json", results)


if __name__ == "__main__":
    main()
