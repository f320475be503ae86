"""What a magnetic resonance scanner does: bias field, Rician noise, ghosts, ringing."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.noise import gaussian_noise
from medssl.augment.ranges import Share, ShareRange, between, both_ways, per_sample, range_of, whole_range_of
from medssl.augment.transform import Parameters, Transform, draw_seeds

DEGREE = 3  # of the bias field's polynomial: what receive coils do is smooth


class BiasField(Transform):
    """The uneven sensitivity of receive coils: x * exp(field), the field a Legendre polynomial (as MONAI's RandBiasField).

    Van Leemput et al., IEEE TMI 18 (1999), section II.
    """

    strength: range_of(0, 1) = Field(default=[0.0, 0.3], description="Largest coefficient of the polynomial, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`coefficients` (n, 4, 4, 4): of degree along z, y, x. The constant is 0: that would be a gain."""
        strength = between(torch.rand(n, generator=generator), *self.strength)
        coefficients = both_ways(torch.rand(n, *[DEGREE + 1] * 3, generator=generator), 1.0) * strength.view(-1, 1, 1, 1)
        degree = torch.arange(DEGREE + 1)
        total = degree[:, None, None] + degree[:, None] + degree
        return {"coefficients": coefficients * ((total > 0) & (total <= DEGREE))}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Clamped to [0, 1]."""
        coefficients = drawn["coefficients"] if images.ndim == 5 else drawn["coefficients"][:, 0]
        return images.mul_(legendre(coefficients, images.shape[2:]).exp_().unsqueeze(1)).clamp_(0, 1)

    def describe(self, drawn: Parameters, i: int) -> str:
        """The largest coefficient."""
        return f"{float(drawn['coefficients'][i].abs().max()):.2f}"


def legendre(coefficients: Tensor, sides: tuple[int, ...]) -> Tensor:
    """(N, *sides): polynomials with coefficients (N, K, ...) of Legendre's over [-1, 1] along each axis, both ends included."""
    field = coefficients
    for axis, side in enumerate(sides):
        x = torch.linspace(-1, 1, side, device=coefficients.device)
        values = [torch.ones_like(x), x]
        for k in range(2, coefficients.shape[1 + axis]):
            values.append(((2 * k - 1) * x * values[k - 1] - (k - 1) * values[k - 2]) / k)
        basis = torch.stack(values[: coefficients.shape[1 + axis]])  # (K, side)
        field = torch.movedim(torch.movedim(field, 1 + axis, -1) @ basis, -1, 1 + axis)
    return field


class RicianNoise(Transform):
    """The magnitude of a complex signal with normal noise in both parts (Gudbjartsson and Patz, MRM 34, 1995)."""

    std: range_of(0, 0.5) = Field(
        default=[0.0, 0.03], description="Standard deviation of either part, share of the range, uniform"
    )

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`std` (n,) and `seed` (n,)."""
        return {"std": between(torch.rand(n, generator=generator), *self.std), "seed": draw_seeds(n, generator)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """sqrt((x + std n1)^2 + (std n2)^2), clamped."""
        noise = gaussian_noise(drawn["seed"], (2, *images.shape[1:])).mul_(per_sample(drawn["std"], images).unsqueeze(1))
        real = noise[:, 0].add_(images)
        return real.mul_(real).addcmul_(noise[:, 1], noise[:, 1]).sqrt_().clamp_(0, 1)


class Ghosting(Transform):
    """Repeats of moving anatomy along the phase-encoding direction: every k-th line of k-space is weakened.

    Axel et al., AJR 148 (1987). The middle of k-space is spared, so that the image keeps its contrast.
    """

    strength: ShareRange = Field(default=[0.1, 0.5], description="How much the lines are weakened, uniform")
    ghosts: whole_range_of(2, 32) = Field(
        default=[2, 6], description="Every so many lines are weakened, which makes as many ghosts; uniform"
    )
    spared: Share = Field(default=0.04, description="Share of the lines, around the middle, that is left alone")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`strength`, `ghosts` and `axis` (n,); the axis is 0 (rows are the phase-encoding direction) or 1 (columns)."""
        u = torch.rand(n, 3, generator=generator)
        low, high = self.ghosts
        return {
            "strength": between(u[:, 0], *self.strength),
            "ghosts": (low + (u[:, 1] * (high - low + 1)).floor()).clamp(max=high),
            "axis": (u[:, 2] < 0.5).float(),
        }

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Magnitude, clamped; both axes are made and each sample takes its own."""
        found = [self._along(images, drawn, axis) for axis in (images.ndim - 2, images.ndim - 1)]
        return torch.where(per_sample(drawn["axis"], images) == 0, *found).clamp_(0, 1)

    def describe(self, drawn: Parameters, i: int) -> str:
        """How many, how strong, and along which axis."""
        axis = "y" if drawn["axis"][i] == 0 else "x"
        return f"{int(drawn['ghosts'][i])} in {axis}, {float(drawn['strength'][i]):.2f}"

    def _along(self, images: Tensor, drawn: Parameters, axis: int) -> Tensor:
        side = images.shape[axis]
        spectrum = torch.fft.rfft(images, dim=axis)
        line = torch.arange(side // 2 + 1, device=images.device)
        weak = (line % drawn["ghosts"][:, None] == 0) & (line > self.spared * side / 2)
        factor = 1 - weak.float() * drawn["strength"][:, None]
        shape = [len(images)] + [1] * (images.ndim - 1)
        shape[axis] = side // 2 + 1
        return torch.fft.irfft(spectrum * factor.view(shape), n=side, dim=axis).abs()


class Gibbs(Transform):
    """Ringing at edges: k-space is cut off at a radius (as MONAI's GibbsNoise; Morelli et al., RadioGraphics 31, 2011)."""

    alpha: ShareRange = Field(default=[0.0, 0.5], description="Share of the radius of k-space that is cut off, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`alpha` (n,)."""
        return {"alpha": between(torch.rand(n, generator=generator), *self.alpha)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Cut off symmetrically about the zero frequency, so that the image stays real; clamped.

        (MONAI's circle lies half a line off for even sizes.)
        """
        axes, sides = tuple(range(2, images.ndim)), images.shape[2:]
        spectrum = torch.fft.rfftn(images, dim=axes)
        squares = torch.zeros(1, device=images.device)
        for axis, side in enumerate(sides):
            line = torch.fft.fftfreq(side, 1 / side, device=images.device)
            if axis == len(sides) - 1:
                line = line[: side // 2 + 1].abs()
            squares = squares + line.view([-1 if other == axis else 1 for other in range(len(sides))]) ** 2
        radius = (1 - drawn["alpha"]) * max(sides) * math.sqrt(2) / 2
        # The corners of a volume lie beyond the circle of alpha 0.
        none = per_sample(drawn["alpha"] == 0, squares.unsqueeze(0))
        kept = (squares.sqrt() <= per_sample(radius, squares.unsqueeze(0))) | none
        return torch.fft.irfftn(spectrum * kept.unsqueeze(1), s=sides, dim=axes).clamp_(0, 1)
