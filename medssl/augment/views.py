"""Random views of a batch: geometry in one resampling, then intensity in the order of acquisition, display and storage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment import geometry
from medssl.augment.geometry import Geometry, crop_transform
from medssl.augment.intensity.additive import Noise
from medssl.augment.intensity.colour import ColorJitter, Grayscale, Illumination, Vignetting
from medssl.augment.intensity.ct import CtKernel, CtNoise
from medssl.augment.intensity.jpeg import Jpeg
from medssl.augment.intensity.mr import BiasField, Ghosting, Gibbs, RicianNoise
from medssl.augment.intensity.occlusion import Cutout
from medssl.augment.intensity.sharpness import Blur, LowResolution
from medssl.augment.intensity.stain import StainJitter
from medssl.augment.intensity.tone import Gamma, HistogramWarp, Solarize
from medssl.augment.intensity.ultrasound import DepthAttenuation, SectorShadow, Speckle
from medssl.augment.resampling import points_per_pixel, resample
from medssl.augment.transform import Parameters, Transform
from medssl.augment.window import WindowJitter, in_window, show, window_ends
from medssl.data.batches import PixelBatch, take
from medssl.errors import DataError
from medssl.seeds import derive, torch_generator
from medssl.strict import StrictModel

# Pixels that are worked on at once: so many that calling torch costs little, so few that what the steps hand on to each other
# stays in the cache of a CPU, and takes little memory beside the views themselves.
CPU_PIXELS, GPU_PIXELS = 2**20, 2**25


class ViewSettings(StrictModel):
    """What views are drawn from. The transforms are applied in the order in which they stand here; null is off."""

    policy: str
    strength: float = Field(
        default=1.0, gt=0, le=3, description="All settings together milder or stronger; see medssl.augment.strength"
    )
    geometry: Geometry = Geometry()
    # The scanner, before the window.
    ct_kernel: CtKernel | None = None
    ct_noise: CtNoise | None = None
    window: WindowJitter = WindowJitter()
    # The specimen, the light, the field.
    stain_jitter: StainJitter | None = None
    illumination: Illumination | None = None
    vignetting: Vignetting | None = None
    bias_field: BiasField | None = None
    depth_attenuation: DepthAttenuation | None = None
    sector_shadow: SectorShadow | None = None
    # Optics and sampling.
    blur: Blur | None = None
    low_resolution: LowResolution | None = None
    gibbs: Gibbs | None = None
    ghosting: Ghosting | None = None
    # Noise.
    speckle: Speckle | None = None
    rician_noise: RicianNoise | None = None
    noise: Noise | None = None
    # Display and storage.
    gamma: Gamma | None = None
    histogram_warp: HistogramWarp | None = None
    color_jitter: ColorJitter | None = None
    grayscale: Grayscale | None = None
    solarize: Solarize | None = None
    jpeg: Jpeg | None = None
    cutout: Cutout | None = Field(default=None, description="Last: what is blanked stays blank")

    def transforms(self) -> dict[str, Transform]:
        """Those that are on, in their order."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, Transform) and value.probability > 0}


class Views:
    """Draws parameters, and applies them."""

    def __init__(self, settings: ViewSettings, dims: int) -> None:
        """`dims`: 2 for images, 3 for volumes."""
        self.settings, self.dims = settings, dims
        self._transforms = settings.transforms()

    def sample(self, n: int, generator: torch.Generator) -> Parameters:
        """Parameters of one view of each of n samples: CPU tensors whose first dimension is n, so that ranks take slices.

        Names are `<transform>.<parameter>`. Each transform draws from a stream of its own, so switching one on or off
        leaves the draws of all others as they were.
        """
        seed = int(torch.randint(0, 2**62, (), generator=generator))
        drawn = _named("geometry", self.settings.geometry.sample(n, seed, self.dims))
        drawn |= _named("window", self.settings.window.sample(n, torch_generator(seed, "window")))
        for name, transform in self._transforms.items():
            drawn |= _named(name, transform.sample(n, torch_generator(derive(seed, name))))
        return drawn

    @torch.no_grad()
    def apply(self, batch: PixelBatch, parameters: Parameters, size: int | tuple[int, ...]) -> Tensor:
        """Views (N, C, *size), float32 in [0, 1], on the device of the batch; a function of its arguments alone.

        Args:
            batch: of (N, C, H, W), or (N, C, D, H, W) where the policy is of volumes.
            parameters: of `sample`.
            size: sides of a view, px; one number for all.

        Raises:
            DataError: crop_mm is asked for and the spacing of an image is not known, or the batch is of other dimensions.
        """
        size = self._size(batch, size)
        device = batch.pixels.device
        matrix, center = self._transform(batch, _of("geometry", parameters))
        groups = _samples_by_points(matrix, size)
        on = {name: parameters[f"{name}.on"] for name in self._transforms}  # looked at on the CPU, without waiting for a GPU
        there = {name: value.to(device, non_blocking=True) for name, value in parameters.items()}
        there |= {"matrix": matrix.to(device, non_blocking=True), "center": center.to(device, non_blocking=True)}
        out = torch.empty(len(batch), batch.pixels.shape[1], *size, device=device)
        for points, samples in groups.items():
            for part in _parts(samples, self._samples_at_once(batch, size, points)):
                drawn = {name: take(value, part) for name, value in there.items()}
                chosen = {name: value[part] for name, value in on.items()}
                place = part if isinstance(part, slice) else part.to(device, non_blocking=True)
                out[place] = self._views(batch.part(part), drawn, chosen, size, points)
        return out

    @torch.no_grad()
    def masks(self, batch: PixelBatch, parameters: Parameters, size: int | tuple[int, ...]) -> Tensor:
        """(N, 1, *size) uint8: the label maps of the batch under the geometry of `apply`; no value that was not there before."""
        size = self._size(batch, size)
        if batch.masks is None:
            raise ValueError("the batch has no masks")
        device, drawn = batch.pixels.device, _of("geometry", parameters)
        matrix, center = (value.to(device) for value in self._transform(batch, drawn))
        elastic = drawn["elastic"].to(device) if "elastic" in drawn else None
        moved = resample(batch.masks.float(), batch.box, matrix, center, size, elastic=elastic, nearest=True)
        return moved.to(torch.uint8)

    def describe(self, parameters: Parameters, i: int) -> list[str]:
        """What was drawn for view i, a few characters a line, for captions."""
        parts = geometry.describe(_of("geometry", parameters), i, self.settings.geometry)
        lines = [" ".join(parts[start : start + 2]) for start in range(0, len(parts), 2)]
        window = _of("window", parameters)
        if self.settings.window != WindowJitter():
            text = f"window {float(window['center_shift'][i]):+.2f} x{float(window['width_factor'][i]):.2f}"
            lines.append(
                text + (f" C{float(window['center'][i]):.0f} W{float(window['width'][i]):.0f}" if "center" in window else "")
            )
        for name, transform in self._transforms.items():
            drawn = _of(name, parameters)
            if drawn["on"][i]:
                lines.append(f"{name.replace('_', ' ')} {transform.describe(drawn, i)}".strip())
        return lines

    def _size(self, batch: PixelBatch, size: int | tuple[int, ...]) -> tuple[int, ...]:
        if batch.pixels.ndim != self.dims + 2:
            kinds = {2: "images", 3: "volumes"}
            raise DataError(
                f"views: the policy {self.settings.policy} is for {kinds[self.dims]}, the batch is {tuple(batch.pixels.shape)}"
            )
        return (size,) * self.dims if isinstance(size, int) else tuple(size)

    def _samples_at_once(self, batch: PixelBatch, size: tuple[int, ...], points: tuple[int, ...]) -> int:
        if torch.compiler.is_compiling():
            return len(batch)
        budget = GPU_PIXELS if batch.pixels.is_cuda else CPU_PIXELS
        channels = batch.pixels.shape[1]
        most = budget // max(batch.pixels[0].numel(), channels * math.prod(size) * math.prod(points))
        # torch samples one volume with one thread.
        return max(most, 1 if batch.pixels.is_cuda or self.dims == 2 else min(torch.get_num_threads(), 4))

    def _views(
        self, batch: PixelBatch, drawn: Parameters, on: Parameters, size: tuple[int, ...], points: tuple[int, ...]
    ) -> Tensor:
        full = torch.tensor([*[0.0] * self.dims, *batch.pixels.shape[2:]])
        full_box = not torch.compiler.is_compiling() and not batch.box.is_cuda and bool((batch.box == full).all())
        elastic, images = drawn.get("geometry.elastic"), in_window(batch)
        views = resample(
            images, batch.box, drawn["matrix"], drawn["center"], size, points=points, elastic=elastic, full_box=full_box
        )
        del images
        center, width = window_ends(batch)
        scale = {"low": center - width / 2, "width": width}  # of window coordinates, for what happens in units
        views = self._apply(views, "units", drawn, on, scale)
        views = show(views, batch, _of("window", drawn))
        return self._apply(views, "display", drawn, on, {})

    def _transform(self, batch: PixelBatch, drawn: Parameters) -> tuple[Tensor, Tensor]:
        """On the CPU, also for a GPU's batch: how many points a pixel takes hangs on it, and must not hang on a device's last bits."""
        settings, (box, spacing) = self.settings.geometry, batch.placed()
        if settings.crop_mm is not None and not spacing.isfinite().all():
            raise DataError(
                "views: geometry.crop_mm needs the spacing of every image, which some files do not say; use crop_scale"
            )
        drawn = {name: value.cpu() for name, value in drawn.items()}
        return crop_transform(box, spacing, drawn, in_mm=settings.crop_mm is not None, inside=settings.edge == "inside")

    def _apply(self, views: Tensor, stage: str, drawn: Parameters, on: Parameters, more: Parameters) -> Tensor:
        for name, transform in self._transforms.items():
            if transform.stage != stage or (transform.colour and views.shape[1] == 1):
                continue
            own = _of(name, drawn) | more
            if torch.compiler.is_compiling():  # shapes that depend on draws would be compiled anew each time
                changed = transform.apply(views.clone(), own)
                views = torch.where(own["on"].view(-1, *[1] * (views.ndim - 1)), changed, views)
                continue
            chosen = on[name].nonzero().squeeze(1)
            if len(chosen) == len(views):
                views = transform.apply(views, own)
            elif len(chosen):
                chosen = chosen.to(views.device, non_blocking=True)
                part = {key: value.index_select(0, chosen) for key, value in own.items()}
                views.index_copy_(0, chosen, transform.apply(views.index_select(0, chosen), part))
        return views


@torch.compiler.disable
def _samples_by_points(matrix: Tensor, size: tuple[int, ...]) -> dict[tuple[int, ...], list[int]]:
    """How many points along each axis a pixel of a view is the mean of, with the samples that it holds for.

    By each sample's own crop: most shrink less than the largest that can be drawn, and points are what resampling costs.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, sides in enumerate(matrix.norm(dim=1).flip(1).tolist()):  # how far a view reaches along each of its axes, stored px
        groups.setdefault(points_per_pixel(tuple(sides), size), []).append(i)
    return groups


def _parts(samples: list[int], most: int) -> Iterator[slice | Tensor]:
    """The samples, at most so many at once; as slices, which copy nothing, where they follow each other."""
    for start in range(0, len(samples), most):
        part = samples[start : start + most]
        follows = part[-1] - part[0] == len(part) - 1
        yield slice(part[0], part[-1] + 1) if follows else torch.tensor(part)


def _named(prefix: str, values: Parameters) -> Parameters:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _of(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    start = f"{prefix}."
    return {name[len(start) :]: value for name, value in values.items() if name.startswith(start)}


def smallest_crop(settings: ViewSettings, store_size: int, dims: int = 2) -> float:
    """Side in stored pixels of the smallest crop that can be drawn, of an image that fills the store's square."""
    return settings.geometry.crop_scale[0] ** (1 / dims) * store_size
