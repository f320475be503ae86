"""The whole of `medssl pretrain` beside its bare step, and beside a lightly script with a DataLoader: in one run, as ratios.

    python benchmarks/step.py [--only loop files] [--network resnet18] [--sizes 64 128] [--batch 64] [--rounds 2] [--out FOLDER]

loop: samples a second of the command, from store to log with the collapse monitor and MLflow, over those of a plain loop of forward,
backward and optimiser's step on views that lie ready, with the same network, precision and batch. Each is a process of its own, in turn.
files: samples a second from image files on disk, second epoch on, over those of benchmarks/lightly_simsiam.py with the same files,
network, batch and cores, at the number of its workers that is the fastest. What `medssl index` takes once stands beside it.

With a GPU the same is done there (`--network resnet50 --sizes 224 --batch 256`), with the share of time that it was at work and the
peak of its memory. Images are made up, and kept in --data for the next run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from common import machine, report, save

BARE, LIGHTLY = 0.95, {"png": 1.5, "jpeg": 1.1}  # what the command is to reach: of the bare step, and times lightly
GPU_LIGHTLY = 3.0
KINDS = {"png": (1024, "png"), "jpeg": (224, "jpg")}  # side of the files in px, and the end of their names
STEPS, WARM = 100, 5  # that are timed, with two reports of the monitor; of the bare loop before the clock starts
HERE = Path(__file__).parent


# --- images and studies -----------------------------------------------------------------------------------------------------------


def make_images(folder: Path, count: int, kind: str) -> Path:
    """A folder of grey images, made where it is not there."""
    side, ending = KINDS[kind]
    place = folder / f"{kind}-{count}"
    if not (place / "done").exists():
        (place / "images").mkdir(parents=True, exist_ok=True)
        parts = [(place / "images", range(first, min(first + 16, count)), side, ending) for first in range(0, count, 16)]
        with multiprocessing.get_context("spawn").Pool() as pool:
            pool.starmap(write_images, parts)
        (place / "done").touch()
    return place / "images"


def write_images(folder: Path, numbers: range, side: int, ending: str) -> None:
    """Noise of many sizes before a dark ground: compresses about as a chest X-ray does."""
    import torch.nn.functional as F
    from PIL import Image

    torch.set_num_threads(1)
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        total = torch.full((1, 1, side, side), 0.5)
        for points, strength in ((4, 0.25), (12, 0.12), (side // 8, 0.05)):
            coarse = torch.randn(1, 1, points, points, generator=generator) * strength
            total += F.interpolate(coarse, size=[side, side], mode="bilinear")
        total += torch.randn(total.shape, generator=generator) * 0.01
        pixels = total[0, 0].clamp_(0, 1).mul_(255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number:06d}.{ending}", quality=90)


def write_study(folder: Path, images: Path, given: argparse.Namespace, size: int, views: str, **pretrain: Any) -> Path:
    """A study of one arm that pretrains on the images."""
    card = {
        "version": 1, "name": "made_up", "title": "Made-up images", "source": "benchmarks/step.py", "licence": "CC0",
        "citation": "none", "obtain": "made by the benchmark", "modality": "CR", "format": "raster", "patient": "image",
        "files": {"include": ["*.png", "*.jpg"]}, "synthetic": True,
    }  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    count = sum(1 for _ in images.iterdir())
    study = {
        "version": 1, "name": "step", "work_dir": str(folder / "work"),
        "data": {"images": {"card": str(folder / "card.yaml"), "root": str(images)}},
        "encoder": {"backbone": given.network, "input_size": size},
        "arms": {"in_domain": {"init": "random", "method": "simsiam"}},
        "pretrain": {
            "method": {"name": "simsiam"}, "views": {"policy": views}, "batch_size": given.batch, "knn_images": 0,
            # So many that the monitor looks as often as in a long run.
            "epochs": max(2, -(-4 * (STEPS + given.first) // (count // given.batch))),
            "optimizer": {"base_lr": 0.05},
        } | pretrain,
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


# --- the command ------------------------------------------------------------------------------------------------------------------


def medssl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "medssl", *arguments]


def index(study: Path) -> float:
    """Seconds of `medssl index`."""
    began = time.perf_counter()
    subprocess.run(medssl("index", "--config", str(study)), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def whole(study: Path, batch: int, start: int) -> dict[str, float]:
    """Samples a second of `medssl pretrain` between two lines of its log; it is then stopped."""
    folder = study.parent / "work"
    shutil.rmtree(folder / "pretrain", ignore_errors=True)
    shutil.rmtree(folder / "tracking", ignore_errors=True)
    with (study.parent / "pretrain.txt").open("w") as text, Utilisation() as busy:
        process = subprocess.Popen(medssl("pretrain", "--config", str(study)), stdout=text, stderr=subprocess.STDOUT)
        try:
            records = follow(process, folder, start + STEPS, study.parent / "pretrain.txt")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    first, last = records[start], records[start + STEPS]
    span = [record["time/unix_ms"] / 1000 for record in (first, last)]
    found = {"rate": STEPS * batch / (span[1] - span[0]), "data": last["time/data_share"]}
    if torch.cuda.is_available():
        found |= {"busy": busy.share(*span), "memory": last["system/gpu_peak_memory_mb"] / 1024}
    return found


def follow(process: subprocess.Popen, folder: Path, step: int, text: Path) -> dict[int, dict[str, float]]:
    """The lines of the log of losses by step, once that of `step` is there."""
    while True:
        time.sleep(0.2)
        records = {}
        for path in folder.glob("tracking/pretrain-*/*/metrics.jsonl"):
            for line in path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # being written
                    continue
                if "pretrain/loss" in record:
                    records[record["step"]] = record
        if step in records:
            return records
        if process.poll() is not None:
            raise RuntimeError(f"medssl pretrain ended before step {step}:\n{text.read_text()}")


class Utilisation:
    """How much of the time the GPU had a kernel at work, as its driver says; nothing where there is no GPU."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Utilisation:
        if torch.cuda.is_available():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        while not self._ended.wait(0.1):
            self._samples.append((time.time(), pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))

    def share(self, begin: float, end: float) -> float:
        """Mean in [0, 1] between two times."""
        return statistics.mean(value for moment, value in self._samples if begin <= moment <= end) / 100


# --- the bare step ----------------------------------------------------------------------------------------------------------------


def bare(study: Path, steps: int) -> None:
    """Print samples a second of forward, backward and optimiser's step on views that lie ready."""
    from medssl.stages.devices import choose_device
    from medssl.stages.encoders import initial_encoder
    from medssl.stages.index import index as archive_of
    from medssl.stages.pretraining import build_run, new_method, plan_of
    from medssl.stages.workspace import open_workspace
    from medssl.training.loop import drawn_at
    from medssl.training.memory import keep_memory

    work = open_workspace(study)
    archive, device, plan = archive_of(work), choose_device(work.study), plan_of(work.study)
    keep_memory()
    encoder, _ = initial_encoder(work, "in_domain")
    if work.study.pretrain.compile:
        encoder.compile()
    method = new_method(work, plan, encoder, device)
    run = build_run(work, archive, archive.rows(pretrain=True), method, plan, device)
    (drawn,) = drawn_at(run, 0)
    method.train()

    def step() -> None:
        run.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=run.precision, enabled=run.precision != torch.float32):
            loss = run.forward(method, drawn).loss
        loss.backward()
        run.optimizer.step()

    for _ in range(WARM):
        step()
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    print(json.dumps({"rate": steps * run.batch_size / (time.perf_counter() - began)}))


def wait(device: torch.device) -> None:
    """For what the GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def output_of(*command: str) -> dict[str, float]:
    """The last line that a script of this folder prints."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# --- what is compared -------------------------------------------------------------------------------------------------------------


def loop(given: argparse.Namespace) -> list[dict]:
    """The command beside the bare step."""
    rows, images = [], make_images(given.data, given.images, "jpeg")
    for size, compiled in itertools.product(given.sizes, [word == "yes" for word in given.compile]):
        study = write_study(given.data / "study", images, given, size, given.policy, compile=compiled)
        index(study)
        ours, theirs = [], []
        for _ in range(given.rounds):
            theirs.append(output_of(__file__, "--bare", str(study), str(given.bare_steps))["rate"])
            ours.append(whole(study, given.batch, given.first))
        best = max(ours, key=lambda found: found["rate"])
        rows.append(
            {
                "network": given.network,
                "px": size,
                "batch": given.batch,
                "compiled": "yes" if compiled else "no",
                "medssl pretrain, samples/s": round(best["rate"], 1),
                "bare step, samples/s": round(max(theirs), 1),
                "ratio": f"{best['rate'] / max(theirs):.3f}",
                "of each round": ", ".join(f"{a['rate'] / b:.3f}" for a, b in zip(ours, theirs, strict=True)),
                "asked": BARE,
                "waited for data": f"{best['data']:.1%}",
            }
            | ({"GPU at work": f"{best['busy']:.0%}", "peak, GiB": f"{best['memory']:.1f}"} if "busy" in best else {})
        )
        report(f"Whole loop and bare step, {size} px", rows[-1:])
    return rows


def files(given: argparse.Namespace) -> list[dict]:
    """From files on disk, beside lightly."""
    rows, gpu = [], torch.cuda.is_available()
    for size, kind in itertools.product(given.sizes[:1], given.kinds):
        images = make_images(given.data, given.images, kind)
        peer = {}
        for workers in given.lightly_workers:
            arguments = [str(images), given.network, str(size), str(given.batch), str(workers), str(given.lightly_epochs)]
            peer[workers] = output_of(str(HERE / "lightly_simsiam.py"), *arguments)["rate"]
        best = max(peer, key=peer.get)
        for policy in given.policies:
            study = write_study(given.data / "study", images, given, size, policy)
            seconds = index(study)
            rate = max(whole(study, given.batch, given.first)["rate"] for _ in range(given.rounds))
            count = sum(1 for _ in images.iterdir())
            gain = count / peer[best] - count / rate
            rows.append(
                {
                    "files": f"{KINDS[kind][0]} px {kind.upper()}",
                    "network": f"{given.network}, {size} px, batch {given.batch}",
                    "views": policy,
                    "medssl, samples/s": round(rate, 1),
                    "lightly, samples/s": round(peer[best], 1),
                    "lightly's workers": ", ".join(f"{n}: {peer[n]:.1f}" for n in peer),
                    "medssl / lightly": f"{rate / peer[best]:.2f}",
                    "asked": GPU_LIGHTLY if gpu else LIGHTLY[kind],
                    "index, s": round(seconds, 1),
                    "paid back after, epochs": f"{seconds / gain:.1f}" if gain > 0 else "never",
                }
            )
            report("From files on disk, second epoch on", rows[-1:])
    return rows


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--bare"]:
        return bare(Path(sys.argv[2]), int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["loop", "files"], default=["loop", "files"])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128], help="px; files: the first")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--policy", default="chest_xray", help="of the views, for loop")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--policies", nargs="+", default=["simclr_natural", "chest_xray"], help="of the views, for files")
    parser.add_argument("--compile", nargs="+", choices=["no", "yes"], default=["no"], help="loop: torch.compile of the encoder")
    parser.add_argument("--first", type=int, default=10, help="steps of the command before the clock starts; a multiple of 10")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bare-steps", type=int, default=50)
    parser.add_argument("--lightly-epochs", type=int, default=3, help="the first one is not timed")
    parser.add_argument("--lightly-workers", nargs="+", type=int, default=[os.cpu_count()])
    parser.add_argument("--data", type=Path, default=Path("benchmarks/results/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    given.data = given.data.absolute()
    results: dict[str, Any] = {"machine": machine(["torch", "torchvision", "lightly"])}
    if torch.cuda.is_available():
        results["machine"]["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(results["machine"]), flush=True)
    tables = {"loop": loop, "files": files}
    for name in given.only:
        results[name] = tables[name](given)
        save(given.out / "step.json", results)
    for name in given.only:
        report(name, results[name])


if __name__ == "__main__":
    main()
