"""The geometry of a view: what is drawn, and the one affine map from the view to the stored image that it makes.

Coordinates are pixels of the store, pixel i spanning [i, i + 1); vectors run x, y(, z), as torch's sampling does. The map is built in
millimetres, so that turning does not deform pixels that are not square, and then brought to pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.ranges import CropRange, Factors, Share, between, both_ways, log_between, range_of
from medssl.augment.transform import Parameters
from medssl.seeds import torch_generator
from medssl.strict import StrictModel

# Below this share of the distance between control points a cubic B-spline deformation cannot fold: Choi and Lee,
# Graphical Models 62 (2000): 1 / 2.046 in two, 1 / 2.479 in three dimensions.
MOST_ELASTIC = 0.4


class Geometry(StrictModel):
    """What the geometry of a view is drawn from."""

    crop_scale: CropRange = Field(default=[1.0, 1.0], description="Share of the image's area or volume, uniform")
    crop_mm: range_of(0, 10_000, above=True) | None = Field(
        default=None, description="Side of the crop in mm, log-uniform; takes the place of crop_scale"
    )
    crop_ratio: Factors = Field(
        default=[1.0, 1.0], description="Width / height of the crop in mm, log-uniform; of volumes also depth / in-plane side"
    )
    rotation: float = Field(default=0.0, ge=0, le=180, description="Largest angle in the image's plane, degrees, uniform")
    tilt: float = Field(
        default=0.0, ge=0, le=180, description="Volumes: largest angle about the two other axes, degrees, uniform"
    )
    quarter_turns: bool = Field(default=False, description="Turn by a multiple of 90 degrees in the plane, each as likely")
    shear: float = Field(default=0.0, ge=0, le=45, description="Largest angle, degrees, uniform")
    translation: Share = Field(
        default=0.0, description="Largest shift of the crop besides its random place, share of its sides, uniform"
    )
    horizontal_flip: Share = Field(default=0.0, description="Probability of exchanging left and right")
    vertical_flip: Share = Field(default=0.0, description="Probability of exchanging top and bottom")
    depth_flip: Share = Field(default=0.0, description="Volumes: probability of exchanging first and last slice")
    elastic: float = Field(
        default=0.0, ge=0, le=MOST_ELASTIC, description="Largest displacement, share of the distance between control points"
    )
    elastic_points: int = Field(
        default=4, ge=2, le=16, description="Distances between control points along each side of the view"
    )
    edge: Literal["inside", "repeat"] = Field(
        default="inside",
        description="inside: a crop that would reach over the image's edge is shrunk and moved; repeat: it repeats the last pixel",
    )

    def sample(self, n: int, seed: int, dims: int) -> Parameters:
        """Parameters of n views on the CPU, each (n, ...) float32; all are drawn whatever the ranges.

        Args:
            seed: of the streams; the elastic deformation has one of its own.
            dims: 2 or 3.
        """
        u = torch.rand(n, 16, generator=torch_generator(seed, "geometry"))
        low, high = self.crop_mm or (1.0, 1.0)
        flips = torch.tensor([self.horizontal_flip, self.vertical_flip, self.depth_flip])
        drawn = {
            "scale": between(u[:, 0], *self.crop_scale),
            "side_mm": log_between(u[:, 0], low, high),
            "ratio": log_between(u[:, 1:3], *self.crop_ratio),
            "place": u[:, 3 : 3 + dims],  # of the crop, as (x, y, z) shares of the room that it has in the image
            "rotation": both_ways(u[:, 6], self.rotation),
            "tilt": both_ways(u[:, 7:9], self.tilt),
            "shear": both_ways(u[:, 9], self.shear),
            "translation": both_ways(u[:, 10:13], self.translation)[:, :dims],
            "flip": (u[:, 13:16] < flips).float()[:, :dims],
        }
        extra = torch.rand(n, 1, generator=torch_generator(seed, "geometry", "turns"))
        drawn["turns"] = (extra[:, 0] * 4).floor() * float(self.quarter_turns)
        if dims == 2:
            drawn.pop("tilt")
            drawn["ratio"] = drawn["ratio"][:, :1]
        if self.elastic:
            points = [self.elastic_points + 3] * dims
            generator = torch_generator(seed, "geometry", "elastic")
            field = both_ways(torch.rand(n, dims, *points, generator=generator), self.elastic / self.elastic_points)
            drawn["elastic"] = field
        return drawn


def crop_transform(
    box: Tensor, spacing: Tensor, drawn: Parameters, *, in_mm: bool = False, inside: bool = True
) -> tuple[Tensor, Tensor]:
    """The affine map from a view to the store: position = matrix @ u + center, each coordinate of u in [-0.5, 0.5].

    The crop is a rectangle or box of the drawn size and ratio, which are kept: where it does not fit it is shrunk as a whole,
    since a changed ratio deforms anatomy. With `inside` all of it lies in the valid box when turned, sheared and deformed too.

    Args:
        box: (N, 2 d): first valid pixels, then the ones after the last, each (z,) y, x.
        spacing: (N, d) mm a pixel, (z,) y, x; NaN where it is not known: then pixels count as cubes.
        drawn: of `Geometry.sample`, on the device of the box.
        in_mm: the size comes from `side_mm`, not from `scale`.

    Returns:
        matrix (N, d, d) and center (N, d), in stored pixels, x first.
    """
    n, dims = len(box), box.shape[1] // 2
    low, high = box[:, :dims].flip(1), box[:, dims:].flip(1)
    room = high - low
    mm = torch.where(spacing.isfinite().all(1, keepdim=True), spacing, 1.0).flip(1)
    size = _crop_size(room * mm, drawn, in_mm)
    frame = _rotation(drawn, dims) @ _shear(drawn["shear"], dims)
    matrix = frame * (size * (1 - 2 * drawn["flip"]))[:, None, :] / mm[:, :, None]
    matrix = matrix @ _quarter_turn(drawn["turns"], dims)
    # What the crop reaches along each axis of the image; a deformation pushes its outline out by as much again.
    reach = 1 + 2 * drawn["elastic"].abs().flatten(1).amax(1) if "elastic" in drawn else torch.ones(n, device=box.device)
    extent = matrix.abs().sum(2) * reach[:, None] if inside else size / mm
    fit = (room / extent).amin(1).clamp_max(1)
    matrix, extent = matrix * fit[:, None, None], extent * fit[:, None]
    shift = drawn["translation"] * (size / mm) * fit[:, None]
    center = low + extent / 2 + drawn["place"] * (room - extent) + shift
    if inside:
        center = torch.minimum(torch.maximum(center, low + extent / 2), high - extent / 2)
    return matrix, center


def _crop_size(room: Tensor, drawn: Parameters, in_mm: bool) -> Tensor:
    """(N, d) mm, x first: a square or cube of the drawn area or volume, deformed by the drawn ratios, volume kept."""
    dims = room.shape[1]
    side = drawn["side_mm"] if in_mm else (drawn["scale"] * room.prod(1)) ** (1 / dims)
    ratio = drawn["ratio"].log()
    plane = ratio[:, 0] / 2
    logs = [plane, -plane] if dims == 2 else [plane - ratio[:, 1] / 3, -plane - ratio[:, 1] / 3, ratio[:, 1] * 2 / 3]
    return side[:, None] * torch.stack(logs, dim=1).exp()


def _rotation(drawn: Parameters, dims: int) -> Tensor:
    matrix = _turn(torch.deg2rad(drawn["rotation"]), 0, 1, dims)
    if dims == 3:
        tilt = torch.deg2rad(drawn["tilt"])
        matrix = _turn(tilt[:, 0], 1, 2, dims) @ _turn(tilt[:, 1], 0, 2, dims) @ matrix
    return matrix


def _turn(angle: Tensor, first: int, second: int, dims: int) -> Tensor:
    """(N, d, d): a rotation in the plane of two axes."""
    cos, sin, unit = angle.cos(), angle.sin(), torch.ones_like(angle)
    entries = {(i, i): unit for i in range(dims)}
    entries |= {(first, first): cos, (second, second): cos, (first, second): -sin, (second, first): sin}
    return _matrix(entries, unit, dims)


def _shear(angle: Tensor, dims: int) -> Tensor:
    entries = {(i, i): torch.ones_like(angle) for i in range(dims)}
    return _matrix(entries | {(0, 1): torch.tan(torch.deg2rad(angle))}, angle, dims)


def _quarter_turn(turns: Tensor, dims: int) -> Tensor:
    """A rotation by exact multiples of 90 degrees in the plane."""
    cos, sin = (turns == 0).float() - (turns == 2).float(), (turns == 1).float() - (turns == 3).float()
    entries = {(0, 0): cos, (1, 1): cos, (0, 1): -sin, (1, 0): sin}
    return _matrix(entries | ({(2, 2): torch.ones_like(turns)} if dims == 3 else {}), turns, dims)


def _matrix(entries: dict[tuple[int, int], Tensor], like: Tensor, dims: int) -> Tensor:
    zero = torch.zeros_like(like)
    return torch.stack([entries.get((i, j), zero) for i in range(dims) for j in range(dims)], dim=1).view(-1, dims, dims)


def describe(drawn: Parameters, i: int, settings: Geometry) -> list[str]:
    """What was drawn for view i, for captions."""
    size = f"{float(drawn['side_mm'][i]):.0f} mm" if settings.crop_mm else f"{float(drawn['scale'][i]):.0%} of it"
    parts = [size]
    if settings.crop_ratio != [1.0, 1.0]:
        parts.append("ratio " + "/".join(f"{float(r):.2f}" for r in drawn["ratio"][i]))
    turned = float(drawn["rotation"][i]) + 90 * float(drawn["turns"][i])
    if settings.rotation or settings.quarter_turns:
        parts.append(f"turn {turned:.0f}°")
    if settings.tilt and "tilt" in drawn:
        parts.append("tilt " + "/".join(f"{float(t):.0f}°" for t in drawn["tilt"][i]))
    if settings.shear:
        parts.append(f"shear {float(drawn['shear'][i]):.0f}°")
    flips = [axis for axis, on in zip("xyz", drawn["flip"][i].tolist(), strict=False) if on]
    if flips:
        parts.append("flip " + "".join(flips))
    if "elastic" in drawn:
        parts.append(f"elastic {float(drawn['elastic'][i].abs().max()) * settings.elastic_points:.2f}")
    return parts
