"""How fast archives are read, side by side with bare loops and with MONAI, in one run, as ratios.

    python benchmarks/reading.py [--files 300] [--scale 1000 10000 100000] [--workers 2] [--out FOLDER]

Made-up files are kept in --data for the next run. Every ratio is medssl's speed over the other's: above 1 is faster.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from common import best_of, machine, report, save
from dicom_files import SYNTAXES, write_many, write_syntax

SIZE = 256


def bare(path: str) -> None:
    """Decode and resize once with antialiasing, and nothing else."""
    import pydicom
    from PIL import Image

    pixels = pydicom.dcmread(path).pixel_array
    Image.fromarray(pixels.astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def bare_loop(paths: list[Path], workers: int) -> Iterator[int]:
    """The bare work by as many processes."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap(bare, map(str, paths), chunksize=8):
            yield 1


def medssl_store(paths: list[Path], workers: int) -> Iterator[int]:
    """What `medssl index` does with the same files: decode, resize, describe, hash, write to the store."""
    from medssl.data.formats import Item, ReadOptions
    from medssl.data.journal import Journal, item_key
    from medssl.data.reading import ReadTask, read_archive

    root = paths[0].parent
    items = [Item(path.name) for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        task = ReadTask("dicom", root, (), ReadOptions(), SIZE)
        journal = Journal(Path(folder) / "private", Path(folder) / "pixels")
        with journal.writer() as writer:
            for answers in read_archive(task, items, workers):
                for item, found in answers:
                    if not hasattr(found[0], "placed"):
                        raise RuntimeError(f"a file of the benchmark was refused: {found[0].reason} {found[0].detail}")
                    writer.add(item_key("", item, ()), item, found)
                yield len(answers)


def monai_cache(paths: list[Path], workers: int) -> Iterator[int]:
    """MONAI's LoadImage and PersistentDataset with the same resize, filled by a loader of as many processes."""
    from monai.data import DataLoader, PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize

    with tempfile.TemporaryDirectory() as folder:
        steps = [LoadImage(image_only=True), EnsureChannelFirst(), Resize((SIZE, SIZE), mode="bilinear", anti_aliasing=True)]
        data = PersistentDataset([str(path) for path in paths], Compose(steps), cache_dir=folder)
        for batch in DataLoader(data, batch_size=8, num_workers=workers):
            yield len(batch)


def rate(work: Iterator[int]) -> float:
    """Images a second from the first result to the last: to start Python takes longer than to read hundreds of images."""
    first = next(work)
    begun, images = time.perf_counter(), 0
    for count in work:
        images += count
    assert first
    return images / (time.perf_counter() - begun)


def to_store(folder: Path, files: int, workers: int) -> list[dict]:
    """DICOM to store, by syntax."""
    rows = []
    for name in SYNTAXES:
        paths = write_syntax(folder, name, files)
        rates = {kind.__name__: 0.0 for kind in (bare_loop, medssl_store, monai_cache)}
        for _ in range(3):  # in turn: what else the machine does meets all
            for kind in (bare_loop, medssl_store, monai_cache):
                rates[kind.__name__] = max(rates[kind.__name__], rate(kind(paths, workers)))
        rows.append(
            {
                "syntax": name,
                "medssl, images/s": round(rates["medssl_store"]),
                "bare loop, images/s": round(rates["bare_loop"]),
                "MONAI, images/s": round(rates["monai_cache"]),
                "medssl / bare loop": f"{rates['medssl_store'] / rates['bare_loop']:.2f}",
                "medssl / MONAI": f"{rates['medssl_store'] / rates['monai_cache']:.2f}",
            }
        )
    return rows


VALUES = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "ImageType", "InstanceNumber", "AcquisitionNumber",
    "EchoTime", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "PhotometricInterpretation", "Modality", "NumberOfFrames", "TriggerTime",
    "TemporalPositionIdentifier", "SpacingBetweenSlices",
)  # fmt: skip


def headers(folder: Path, files: int) -> list[dict]:
    """Header scan, one process: elements found and kept, as pydicom does it; and all that grouping slices takes, converted."""
    import pydicom

    from medssl.data.formats import Item, ReadOptions
    from medssl.data.formats.dicom_parse import parse
    from medssl.data.formats.slice_headers import KEYWORDS, scan

    def elements(paths: list[Path]) -> None:
        for path in paths:
            with path.open("rb") as file:
                parse(file, KEYWORDS)

    def slices(paths: list[Path]) -> None:
        for path in paths:
            (found,) = scan(path.parent, Item(path.name), ReadOptions(units="volumes"))
            assert found.rows == 512

    def pydicom_elements(paths: list[Path]) -> None:
        for path in paths:
            pydicom.dcmread(path, stop_before_pixels=True)

    def pydicom_values(paths: list[Path]) -> None:
        for path in paths:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            for keyword in VALUES:
                dataset.get(keyword)

    rows = []
    for name in ("uncompressed", "JPEG 2000"):
        paths = write_syntax(folder, name, files)
        for what, ours, theirs in (
            ("elements kept as they are", elements, pydicom_elements),
            ("headers of slices, checked and converted", slices, pydicom_values),
        ):
            mine, other = float("inf"), float("inf")
            for _ in range(7):  # in turn: what else the machine does meets both
                mine, other = (
                    min(mine, best_of(1, lambda f=ours, p=paths: f(p))),
                    min(other, best_of(1, lambda f=theirs, p=paths: f(p))),
                )
            rows.append(
                {
                    "syntax": name,
                    "what": what,
                    "medssl, files/s": round(files / mine),
                    "pydicom, files/s": round(files / other),
                    "medssl / pydicom": f"{other / mine:.2f}",
                }
            )
    return rows


def batches(folder: Path) -> list[dict]:
    """Random batches of 256 out of a store of 8,192 images, and the same bytes copied from memory to memory."""
    from medssl.data.store import ShardWriter, Store, write_store

    rows = []
    for dtype in (np.uint8, np.uint16):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            shards: dict[str, int] = {}
            images = np.random.default_rng(0).integers(0, 255, (64, SIZE, SIZE)).astype(dtype)
            for number in range(4):
                writer = ShardWriter(Path(place), f"{number}")
                for at in range(2048):
                    writer.append(images[at % 64], "grey")
                shards |= writer.close()
            write_store(Path(place), Path(place), SIZE, shards, {})
            store, rng = Store(Path(place)), np.random.default_rng(1)
            draws = [(rng.integers(0, 4, 256), rng.integers(0, 2048, 256)) for _ in range(20)]
            # The same images in memory, of which 256 that lie one after another are copied: nothing is in the processor's cache.
            memory = np.tile(images, (4 * 2048 // 64, 1, 1))
            starts = rng.integers(0, len(memory) - 256, 20).tolist()
            size = 256 * memory[0].nbytes
            for shard, row in draws:
                store.read(shard, row)  # into the page cache
            ours = best_of(7, lambda store=store, draws=draws: [store.read(shard, row) for shard, row in draws]) / 20
            copied = best_of(7, lambda memory=memory, starts=starts: [memory[at : at + 256].copy() for at in starts]) / 20
        rows.append(
            {
                "pixels": np.dtype(dtype).name,
                "medssl, GB/s": f"{size / ours / 1e9:.2f}",
                "memory copy, GB/s": f"{size / copied / 1e9:.2f}",
                "medssl / copy": f"{copied / ours:.2f}",
            }
        )
    return rows


# VmHWM, since ru_maxrss of a process begins with that of the one that started it.
_INDEX = """
import json, pathlib, re, resource, sys, time
begun = time.perf_counter()
sys.argv = ["medssl", "index", "--config", sys.argv[1]]
from medssl.cli import app
try:
    app()
except SystemExit as stop:
    assert not stop.code, stop.code
peak = int(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"seconds": time.perf_counter() - begun, "MiB": peak / 1024, "child MiB": child / 1024}))
"""


def scale(folder: Path, counts: list[int], workers: int) -> list[dict]:
    """`medssl index` of 10 and 100 times the files: time and peak memory; then again with nothing changed, and with one new file."""
    rows = []
    for count in counts:
        archive = folder / f"many-{count}"
        write_many(archive, count)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            study = Path(place) / "study.yaml"
            study.write_text(_study(place, archive / "files", workers))
            (Path(place) / "card.yaml").write_text(_CARD)
            first = _run(study)
            again = _run(study)
            extra = archive / "files" / "extra.dcm"
            extra.write_bytes((archive / "files" / "00000" / "0000000.dcm").read_bytes())
            one_more = _run(study)
            extra.unlink()
        rows.append(
            {
                "files": count,
                "seconds": f"{first['seconds']:.1f}",
                "files/s": round(count / first["seconds"]),
                "peak MiB": round(first["MiB"]),
                "peak MiB, child": round(first["child MiB"]),
                "nothing changed, s": f"{again['seconds']:.1f}",
                "one new file, s": f"{one_more['seconds']:.1f}",
                "time ratio": f"{first['seconds'] / float(rows[-1]['seconds']):.2f}" if rows else "",
                "memory ratio": f"{first['MiB'] / rows[0]['peak MiB']:.2f}" if rows else "",
            }
        )
    return rows


def _run(study: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", _INDEX, str(study)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


_CARD = """
version: 1
name: many
title: many small files
source: made up
licence: none
citation: none
obtain: made by this benchmark
synthetic: true
modality: CT
format: dicom
patient: [{tag: PatientID}]
"""


def _study(place: str, root: Path, workers: int) -> str:
    return f"""
version: 1
name: many
work_dir: {place}/work
data: {{many: {{card: card.yaml, root: {root}}}}}
store: {{size: 32, workers: {workers}}}
encoder: {{input_size: 28}}
tracking: {{enabled: false}}
"""


def million(rows: int = 1_000_000) -> list[dict]:
    """A manifest of a million rows: opened, and split by patient."""
    from million_rows import manifest, opened

    from medssl.data.splits import make_splits
    from medssl.task import BinaryTask

    frame = manifest(rows)
    seconds_open = opened(frame)
    task = BinaryTask(kind="binary", data="many", target="finding", positive="yes")
    begun = time.perf_counter()
    make_splits(frame, task, 0, transductive=False)
    return [{"rows": rows, "open, s": f"{seconds_open:.1f}", "split, s": f"{time.perf_counter() - begun:.1f}"}]


def main() -> None:
    """Measure and print; all of it takes about ten minutes on two cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scale", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "medssl-bench-reading")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", choices=["store", "headers", "batches", "million", "scale"], nargs="*")
    given = parser.parse_args()
    given.data.mkdir(parents=True, exist_ok=True)
    parts = {
        "store": ("DICOM to store", lambda: to_store(given.data, given.files, given.workers)),
        "headers": ("Header scan, one process", lambda: headers(given.data, given.files)),
        "batches": ("Random batches of 256 images", lambda: batches(given.data)),
        "million": ("A manifest of a million rows", million),
        "scale": ("Scale", lambda: scale(given.data, given.scale, given.workers)),
    }
    results = {"machine": machine(["pydicom", "python-gdcm", "pylibjpeg-openjpeg", "monai", "torch", "numpy", "pillow"])}
    print(json.dumps(results["machine"]))
    for name, (title, measure) in parts.items():
        if not given.only or name in given.only:
            results[name] = measure()
            report(title, results[name])
    save(given.out / "reading.json", results)


if __name__ == "__main__":
    main()
