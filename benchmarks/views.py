"""How fast random views are made, side by side with lightly, MONAI and kornia, in one run, as ratios; and their memory.

    python benchmarks/views.py [--quick] [--workers 2] [--only images volumes memory gpu policies] [--out FOLDER]

Images and volumes are made up. Every ratio is medssl's speed over the other's: above 1 is faster. medssl and kornia make
batches with as many threads as lightly and MONAI have worker processes; all loaders are measured once they run.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parent))

from common import machine, report, save

from medssl.augment.policies import POLICIES, build_policy, policy_settings
from medssl.augment.views import Views
from medssl.data.batches import PixelBatch
from medssl.training.memory import keep_memory

STORE, VIEW = 256, 224  # px: side of the stored images, and of the views
VOLUME, CROP = 96, 64  # the same of volumes
BATCH, LOADED = 64, 32  # samples a batch: of medssl and kornia, and of the loaders
LIGHTLY, MONAI, KORNIA, MONAI_VOLUMES = 4.0, 4.0, 6.0, 3.0  # how many times as fast medssl is to be
MEMORY, SHARE = 3.0, 0.05  # peak memory over the views' own, and time over a training step's, at most

Run = Callable[[], float]  # makes views, and gives how many a second


# --- made-up samples --------------------------------------------------------------------------------------------------------------


def smooth(n: int, side: int, dims: int, channels: int = 1) -> Tensor:
    """(n, channels, side, ...) uint8: a bright body in front of black, structures of many sizes, and noise."""
    generator = torch.Generator().manual_seed(0)
    mode = "bilinear" if dims == 2 else "trilinear"
    found = torch.empty(n, channels, *[side] * dims, dtype=torch.uint8)
    line = torch.linspace(-1, 1, side)
    radius = sum(line.view([-1 if other == axis else 1 for other in range(dims)]) ** 2 for axis in range(dims))
    body = torch.sigmoid((0.9 - radius) * 8)
    for image in found:
        total = torch.full((1, channels, *[side] * dims), 0.5)
        for points, strength in ((4, 0.25), (12, 0.12), (side // 4, 0.06)):
            coarse = torch.randn(1, channels, *[points] * dims, generator=generator) * strength
            total += F.interpolate(coarse, size=[side] * dims, mode=mode)
        noise = torch.randn(channels, *[side] * dims, generator=generator) * 0.02
        image.copy_((total[0] * body + noise).clamp_(0, 1).mul_(255))
    return found


def pixel_batch(pixels: Tensor, margin: float = 0.0, millimetres: float = 1.0) -> PixelBatch:
    """A batch as the store gives it. `margin`: share of each image's sides, at its end, that is padding."""
    n, sides = len(pixels), torch.tensor(pixels.shape[2:], dtype=torch.float32)
    box = torch.cat([torch.zeros(len(sides)), (sides * (1 - margin)).floor()]).repeat(n, 1)
    full = torch.full((n,), 255.0)
    return PixelBatch(
        pixels=pixels,
        slope=torch.ones(n),
        intercept=torch.zeros(n),
        center=full / 2,
        width=full,
        function=torch.ones(n, dtype=torch.int64),
        invert=torch.zeros(n, dtype=torch.bool),
        box=box,
        row=torch.arange(n),
        spacing=torch.full((n, len(sides)), millimetres),
    )


# --- who makes views --------------------------------------------------------------------------------------------------------------


def medssl(views: Views, batches: list[PixelBatch], size: int) -> Run:
    """Two views of each sample: drawn, and made, a batch at once."""
    generator = torch.Generator().manual_seed(0)

    def run() -> float:
        begun = time.perf_counter()
        for batch in batches:
            for _ in range(2):
                views.apply(batch, views.sample(len(batch), generator), size)
        return 2 * sum(map(len, batches)) / (time.perf_counter() - begun)

    return run


def of_policy(settings: dict[str, Any], pixels: Tensor, size: int, per_batch: int = BATCH, **given: float) -> Run:
    """medssl with the settings of a study's `pretrain.views`."""
    return medssl(build_policy(policy_settings(settings)), [pixel_batch(part, **given) for part in pixels.split(per_batch)], size)


class Twice(Dataset):
    """Two views of each sample by a peer's transform. MONAI seeds `transform` in each worker."""

    def __init__(self, samples: list[Any], count: int, transform: Callable[[Any], Any], pair: bool) -> None:
        """`count`: samples of an epoch, the given ones over and over. `pair`: one call makes both views."""
        self.samples, self.count, self.transform, self.pair = samples, count, transform, pair

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        sample = self.samples[i % len(self.samples)]
        return self.transform(sample) if self.pair else [self.transform(sample), self.transform(sample)]


def loader(data: Twice, workers: int, per_batch: int) -> Run:
    """A transform a sample, in worker processes that stay; first batches are not counted: starting is not what is measured."""
    from monai.data.utils import worker_init_fn

    batches = DataLoader(data, per_batch, num_workers=workers, persistent_workers=True, worker_init_fn=worker_init_fn)

    def run() -> float:
        remaining: Iterator[Any] = iter(batches)
        for _ in range(workers):  # one of each worker
            next(remaining)
        begun, samples = time.perf_counter(), 0
        for pair in remaining:
            samples += len(pair[0])
        return 2 * samples / (time.perf_counter() - begun)

    return run


def in_turn(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Views a second of each, the best of some rounds in which each has its turn: what else the machine does meets all."""
    best = dict.fromkeys(runs, 0.0)
    for _ in range(rounds):
        for name, run in runs.items():
            best[name] = max(best[name], run())
    return best


def ratios(rates: dict[str, float], ours: list[str], targets: dict[str, float]) -> list[dict]:
    """A row for each; `targets`: of the first of `ours` over the others."""
    rows = []
    for name, rate in rates.items():
        row = {"views by": name, "views/s": f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"}
        row |= {f"{own} / this": "" if name in ours else f"{rates[own] / rate:.2f}" for own in ours}
        rows.append(row | {"target": f"{targets[name]:.0f}" if name in targets else ""})
    return rows


# --- 2D ---------------------------------------------------------------------------------------------------------------------------


def images(count: int, rounds: int, workers: int) -> list[dict]:
    """Grey views of 224 px from a store of 256 px."""
    from lightly.transforms import SimSiamTransform
    from PIL import Image

    torch.set_num_threads(workers)
    pixels = smooth(min(count, 256), STORE, 2)
    pixels = pixels.repeat(math.ceil(count / len(pixels)), 1, 1, 1)[:count]
    grey = [Image.fromarray(image[0].numpy(), "L") for image in pixels[:256]]
    colour = [image.convert("RGB") for image in grey]
    one_channel = {"mean": [0.449], "std": [0.226]}
    runs = {
        "medssl chest_xray": of_policy({"policy": "chest_xray"}, pixels, VIEW),
        "medssl chest_xray, padded": of_policy({"policy": "chest_xray"}, pixels, VIEW, margin=0.2),
        "medssl simclr_natural": of_policy({"policy": "simclr_natural"}, pixels, VIEW),
        "medssl simclr_natural, RGB": of_policy({"policy": "simclr_natural"}, pixels.expand(-1, 3, -1, -1), VIEW),
        "lightly SimSiam, RGB": loader(Twice(colour, count, SimSiamTransform(VIEW), True), workers, LOADED),
        "lightly SimSiam, grey": loader(Twice(grey, count, SimSiamTransform(VIEW, normalize=one_channel), True), workers, LOADED),
        "MONAI": loader(Twice(list(pixels[:256]), count, monai_images(), False), workers, LOADED),
        "kornia, crop by slices": kornia_images(pixels, "slice"),
        "kornia, crop by resampling": kornia_images(pixels, "resample"),
    }
    rates = in_turn(runs, rounds)
    targets = {"lightly SimSiam, RGB": LIGHTLY, "lightly SimSiam, grey": LIGHTLY, "MONAI": MONAI}
    targets |= dict.fromkeys(("kornia, crop by slices", "kornia, crop by resampling"), KORNIA)
    return ratios(rates, list(rates)[:4], targets)


def monai_images() -> Callable[[Tensor], Tensor]:
    """The nearest to chest_xray: crop, turn and ratio in one resampling, then window, noise and gamma."""
    from monai import transforms as m
    from monai.data import set_track_meta

    set_track_meta(False)
    return m.Compose(
        [
            m.ScaleIntensityRange(0, 255, 0, 1),
            monai_affine(m.RandAffine, STORE, VIEW, 2, rotate_range=math.radians(12), shear_range=0.05),
            m.RandScaleIntensity(factors=0.2, prob=1.0),
            m.RandShiftIntensity(offsets=0.08, prob=1.0),
            m.ThresholdIntensity(0.0, above=True, cval=0.0),
            m.ThresholdIntensity(1.0, above=False, cval=1.0),
            m.RandGaussianNoise(prob=1.0, std=0.015),
            m.RandAdjustContrast(prob=1.0, gamma=(0.75, 1.35)),
        ]
    )


def monai_affine(kind: type, stored: int, size: int, dims: int, **given: Any) -> Any:
    """MONAI's affine resampling whose scale and shift make crops of 0.3 to 1 of the image at random places."""
    low, high = (stored / size * share ** (1 / dims) - 1 for share in (0.3, 1.0))
    shift = stored * (1 - 0.65 ** (1 / dims)) / 2
    return kind(
        prob=1.0, scale_range=(low, high), translate_range=shift, spatial_size=(size,) * dims, padding_mode="border", **given
    )


def kornia_images(pixels: Tensor, cropping: str) -> Run:
    """The nearest to chest_xray by kornia, a batch at once; its images are float32 in [0, 1] beforehand."""
    import kornia.augmentation as k

    steps = torch.nn.Sequential(
        k.RandomResizedCrop((VIEW, VIEW), scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3), cropping_mode=cropping),
        k.RandomRotation(12.0, p=1.0),
        k.RandomBrightness((0.92, 1.08)),
        k.RandomContrast((0.9, 1.4)),
        k.RandomGaussianNoise(std=0.015, p=1.0),
        k.RandomGamma((0.75, 1.35)),
    )
    batches = (pixels.float() / 255).split(BATCH)

    @torch.no_grad()
    def run() -> float:
        begun = time.perf_counter()
        for batch in batches:
            for _ in range(2):
                steps(batch)
        return 2 * sum(map(len, batches)) / (time.perf_counter() - begun)

    return run


# --- 3D ---------------------------------------------------------------------------------------------------------------------------

# What MONAI has too: one resampling, gamma and noise.
FEWER = {
    "policy": "plain_volume",
    "geometry": {"crop_scale": [0.3, 1.0], "crop_ratio": [0.9, 1.1], "rotation": 15.0, "tilt": 8.0},
    "rician_noise": {"std": [0.0, 0.03], "probability": 0.5},
    "gamma": {"exponent": [0.75, 1.35]},
}


def volumes(count: int, rounds: int, workers: int) -> list[dict]:
    """Grey views of 64^3 from volumes of 96^3."""
    torch.set_num_threads(workers)
    pixels = smooth(min(count, 8), VOLUME, 3)
    samples = list(pixels)
    pixels = pixels.repeat(math.ceil(count / len(pixels)), 1, 1, 1, 1)[:count]
    rows = []
    for what, settings, theirs in (("mr_volume", {"policy": "mr_volume"}, True), ("geometry, gamma, noise", FEWER, False)):
        ours = f"medssl {what}"
        runs = {
            ours: of_policy(settings, pixels, CROP, 8),
            f"{ours}, padded": of_policy(settings, pixels, CROP, 8, margin=0.2),
            f"MONAI, {what}": loader(Twice(samples, count, monai_volumes(theirs), False), workers, 2),
        }
        found = ratios(in_turn(runs, rounds), list(runs)[:2], {f"MONAI, {what}": MONAI_VOLUMES})
        rows += [{key.replace(ours, "medssl"): value for key, value in row.items()} for row in found]
    return rows


def monai_volumes(everything: bool) -> Callable[[Tensor], Tensor]:
    """The nearest to mr_volume, with its probabilities; or one resampling, gamma and noise. (MONAI has no ghosting.)"""
    from monai import transforms as m
    from monai.data import set_track_meta

    set_track_meta(False)
    turns = {"rotate_range": [math.radians(degrees) for degrees in (8, 8, 15)]}
    scale = m.ScaleIntensityRange(0, 255, 0, 1)
    rician, gamma = m.RandRicianNoise(prob=0.5, std=0.03), m.RandAdjustContrast(prob=1.0, gamma=(0.75, 1.35))
    if not everything:
        return m.Compose([scale, monai_affine(m.RandAffine, VOLUME, CROP, 3, **turns), rician, gamma])
    elastic = {"sigma_range": (5, 8), "magnitude_range": (50, 150)}
    return m.Compose(
        [
            scale,
            monai_affine(m.Rand3DElastic, VOLUME, CROP, 3, **turns, **elastic),
            m.RandScaleIntensity(factors=0.2, prob=1.0),
            m.RandShiftIntensity(offsets=0.1, prob=1.0),
            m.ThresholdIntensity(0.0, above=True, cval=0.0),
            m.ThresholdIntensity(1.0, above=False, cval=1.0),
            m.RandBiasField(prob=0.5, coeff_range=(0.0, 0.3)),
            m.RandSimulateLowResolution(prob=0.2, zoom_range=(0.6, 1.0)),
            m.RandGibbsNoise(prob=0.15, alpha=(0.1, 0.45)),
            rician,
            m.RandHistogramShift(num_control_points=6, prob=0.3),
            gamma,
        ]
    )


# --- memory -----------------------------------------------------------------------------------------------------------------------


def memory(quick: bool, workers: int) -> list[dict]:
    """Peak memory while a batch of views is made, beyond the stored pixels, over the size of the views."""
    rows = []
    for policy in ("chest_xray", "mr_volume"):
        batch = (64 if quick else 256) if POLICIES[policy].dims == 2 else (8 if quick else 64)
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            command = [sys.executable, __file__, "--peak", policy, device, str(batch), str(workers)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append(
                {
                    "policy": policy,
                    "device": device,
                    "batch": batch,
                    "views, MiB": f"{found['views'] / 2**20:.1f}",
                    "peak, MiB": f"{found['peak'] / 2**20:.1f}",
                    "peak / views": f"{found['peak'] / found['views']:.2f}",
                    "target, at most": f"{MEMORY:.0f}",
                }
            )
    return rows


def peak(policy: str, device: str, batch: int, threads: int) -> dict[str, int]:
    """In a process of its own: bytes of a batch of views, and what making them took at most, views included."""
    torch.set_num_threads(threads)
    dims = POLICIES[policy].dims
    stored, size = (STORE, VIEW) if dims == 2 else (VOLUME, CROP)
    pixels = smooth(min(batch, 16), stored, dims)
    made = pixel_batch(pixels.repeat(math.ceil(batch / len(pixels)), *[1] * (dims + 1))[:batch]).to(device)
    views, generator = build_policy(policy_settings({"policy": policy})), torch.Generator().manual_seed(0)
    views.apply(made.part(slice(0, 1)), views.sample(1, generator), size)  # what libraries load and set up at their first call
    drawn = views.sample(batch, generator)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = views.apply(made, drawn, size)
        return {"views": out.nbytes, "peak": torch.cuda.max_memory_allocated() - before}
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew: ru_maxrss would still know what imports took
    before = resident("VmRSS")
    out = views.apply(made, drawn, size)
    return {"views": out.nbytes, "peak": resident("VmHWM") - before}


def resident(line: str) -> int:
    """Bytes of this process in memory, by a line of /proc/self/status."""
    return 1024 * int(re.search(rf"{line}:\s*(\d+)", Path("/proc/self/status").read_text())[1])


# --- GPU --------------------------------------------------------------------------------------------------------------------------


def gpu(quick: bool, device: str = "cuda", batch: int = 256, network: str = "resnet50") -> list[dict]:
    """Both views of a batch, drawn and made, over a training step of SimSiam: ResNet-50, 224 px, bfloat16."""
    from medssl.methods.simsiam import SimSiam, SimSiamSettings
    from medssl.models.encoder import build_encoder

    times = 5 if quick else 20
    pixels = smooth(min(batch, 32), STORE, 2).repeat(math.ceil(batch / 32), 1, 1, 1)[:batch]
    samples = pixel_batch(pixels).to(device)
    views, generator = build_policy(policy_settings({"policy": "chest_xray"})), torch.Generator().manual_seed(0)
    method = SimSiam(SimSiamSettings(), build_encoder(network)).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)

    def both(apply: Callable[..., Tensor]) -> list[Tensor]:
        return [apply(samples, views.sample(batch, generator), VIEW) for _ in range(2)]

    def step(forward: Callable[[list[Tensor]], Any], pair: list[Tensor]) -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = forward(pair).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    pair = [view.contiguous(memory_format=torch.channels_last) for view in both(views.apply)]
    applied = {"eager": views.apply, "torch.compile": torch.compile(views.apply)}
    forwards = {"eager": method, "torch.compile": torch.compile(method)}
    rows = []
    for how in applied:
        made = seconds(lambda how=how: both(applied[how]), times, device)
        trained = seconds(lambda how=how: step(forwards[how], pair), times, device)
        rows.append(
            {
                "views and step": how,
                "two views, ms": f"{made * 1e3:.2f}",
                "step, ms": f"{trained * 1e3:.1f}",
                "views / step": f"{made / trained:.1%}",
                "target": f"< {SHARE:.0%}",
            }
        )
    return rows


def seconds(call: Callable[[], Any], times: int, device: str) -> float:
    """Of one call, among many that follow each other as in training; the best of three."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    best = math.inf
    for round_ in range(4):  # the first compiles and warms up
        wait()
        begun = time.perf_counter()
        for _ in range(times if round_ else 3):
            call()
        wait()
        best = min(best, (time.perf_counter() - begun) / times) if round_ else best
    return best


# --- every policy -----------------------------------------------------------------------------------------------------------------


def policies(quick: bool, rounds: int, workers: int) -> list[dict]:
    """Views a second of every policy: 224 px from 256 px, and 64^3 from 96^3."""
    torch.set_num_threads(workers)
    many, few = (BATCH, 2) if quick else (2 * BATCH, 8)
    samples = {(2, 1): smooth(many, STORE, 2), (2, 3): smooth(many, STORE, 2, 3), (3, 1): smooth(few, VOLUME, 3)}
    runs, rows = {}, []
    for name, policy in POLICIES.items():
        kinds = {"grey": [1], "rgb": [3], "any": [1, 3] if policy.dims == 2 else [1]}[policy.channels]
        for channels in kinds:
            pixels = samples[policy.dims, channels]
            # 2 mm: the largest crop in millimetres fits.
            runs[name, channels] = of_policy({"policy": name}, pixels, VIEW if policy.dims == 2 else CROP, millimetres=2.0)
    for (name, channels), rate in in_turn(runs, rounds).items():
        dims = POLICIES[name].dims
        rows.append(
            {"policy": name, "dims": dims, "channels": channels, "views/s": f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"}
        )
    return rows


def main() -> None:
    """Measure and print; all of it takes about eight minutes on two cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds: whether it runs, not how fast")
    parser.add_argument("--workers", type=int, default=2, help="threads of medssl and kornia, processes of lightly and MONAI")
    parser.add_argument("--only", choices=["images", "volumes", "memory", "gpu", "policies"], nargs="*")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)  # how `memory` calls a process of its own
    given = parser.parse_args()
    if given.peak:
        policy, device, batch, threads = given.peak
        print(json.dumps(peak(policy, device, int(batch), int(threads))))
        return
    keep_memory()  # as training does; kornia, in the same process, gains from it too
    quick, workers, rounds = given.quick, given.workers, 2 if given.quick else 3
    parts = {
        "images": (
            f"Two views a sample, {VIEW} px from {STORE} px, CPU with {workers} threads or workers",
            lambda: images(256 if quick else 512, rounds, workers),
        ),
        "volumes": (
            f"Two views a sample, {CROP}^3 from {VOLUME}^3, CPU with {workers} threads or workers",
            lambda: volumes(12 if quick else 24, rounds, workers),
        ),
        "memory": ("Peak memory of making a batch of views, views included", lambda: memory(quick, workers)),
        "gpu": ("Views of both samples beside a SimSiam step, ResNet-50, 224 px, batch 256, bfloat16", lambda: gpu(quick)),
        "policies": (f"Every policy, CPU with {workers} threads", lambda: policies(quick, rounds, workers)),
    }
    results: dict[str, Any] = {"machine": machine(["torch", "torchvision", "monai", "kornia", "lightly", "numpy", "pillow"])}
    if torch.cuda.is_available():
        results["machine"]["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(results["machine"]))
    for name, (title, measure) in parts.items():
        if given.only and name not in given.only:
            continue
        if name == "gpu" and not torch.cuda.is_available():
            print(f"\n### {title}\n\nno GPU was there", flush=True)
            continue
        results[name] = measure()
        report(title, results[name])
    save(given.out / "views.json", results)


if __name__ == "__main__":
    main()
