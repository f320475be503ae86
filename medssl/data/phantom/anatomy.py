"""The body of one phantom patient: what stays the same in every image of that patient.

Millimetres in the patient's frame: x to the patient's left, y to the feet, z to the front; the origin lies in the middle of the
chest at the height of the hila. Bones and vessels are clouds of points that carry volume, so that a frontal and a lateral view
are two projections of one body; soft tissue, lungs and heart are closed shapes (see `drawing`).
Proportions are those of a schematic adult. Nothing here is fitted to images of people.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from medssl.data.phantom.vessels import Cloud, draw_vessels

TEXTURE_SIDE = 192  # nodes along a side of the texture; 2 mm apart, wrapped around
RIBS = 12
EMPTY = Cloud(np.zeros((0, 3)), np.zeros(0), 0.0)


@dataclass(frozen=True)
class Opacity:
    """One focal opacity: centre and radii in mm, tilt in radians, optical depth at its middle, softness of its edge."""

    centre: tuple[float, float, float]
    radii: tuple[float, float]
    tilt: float
    depth: float
    softness: float
    texture: tuple[float, float]  # where in the patient's texture its own pattern begins, mm


@dataclass(frozen=True)
class Anatomy:
    """One patient. Lengths in mm, angles in radians, densities relative to soft tissue."""

    female: bool
    age: int
    build: float  # overall scale
    chest: float  # half-width of the lungs at their base
    depth: float  # front to back
    wall: float  # soft tissue outside the ribs
    apex: float  # y of the top of the lungs
    domes: tuple[float, float]  # y of the diaphragm's domes: the patient's right, left
    heart: tuple[float, float, float]  # half-length, half-width, tilt
    heart_centre: tuple[float, float]
    aorta: float  # radius of the aortic knob
    mediastinum: float  # half-width
    vertebra: float  # height of a vertebra with its disc
    scoliosis: float  # sideways bow of the spine
    lung_density: float
    haze: float  # amplitude of the lungs' fine texture, optical depth
    breast: float  # depth of the breasts' shadow
    breast_at: tuple[float, float]
    nipples: float  # optical depth; 0 = not seen
    stomach: float  # radius of the gastric air bubble
    texture: np.ndarray = field(repr=False)
    granulomas: np.ndarray = field(repr=False)  # (n, 4): x, y, z, radius
    bones: Cloud = field(default=EMPTY, repr=False)
    vessels: tuple[Cloud, ...] = field(default=(), repr=False)

    def lung_half_width(self, y: np.ndarray | float) -> np.ndarray:
        """Distance from the midline to the lateral edge of the lungs at height y; 0 above the apex."""
        along = np.clip((np.asarray(y, dtype=np.float64) - self.apex) / 200.0, 0.0, 1.0)
        below = 1.0 - along
        return self.chest * (1.0 - below * below * np.sqrt(below)) ** 0.62

    def spine_x(self, y: np.ndarray | float) -> np.ndarray:
        """Sideways position of the spine at height y."""
        return self.scoliosis * np.sin(np.asarray(y) / 70.0)

    def spine_z(self, y: np.ndarray | float) -> np.ndarray:
        """Front-to-back position of the middle of the vertebral bodies at height y (kyphosis)."""
        return -0.33 * self.depth + 14.0 * ((np.asarray(y) - 10.0) / 130.0) ** 2


def draw_anatomy(generator: np.random.Generator, step: float) -> Anatomy:
    """The anatomy of a patient.

    Args:
        generator: the patient's own stream.
        step: distance between points of bones in mm; about the size of a pixel. It changes no draw.
    """
    female = bool(generator.random() < 0.48)
    uniform = generator.uniform
    chest, depth, apex = uniform(118, 136), uniform(180, 235), uniform(-128, -116)
    anatomy = Anatomy(
        female=female,
        age=int(np.clip(generator.normal(58, 17), 18, 94)),
        build=uniform(0.93, 1.0) if female else uniform(0.97, 1.06),
        chest=chest,
        depth=depth,
        wall=float(np.clip(generator.gamma(6.0, 4.0), 12, 42)),
        apex=apex,
        domes=(right := uniform(82, 108), right + uniform(2, 18)),
        heart=(uniform(66, 86), uniform(44, 60), uniform(0.55, 0.85)),
        heart_centre=(uniform(18, 30), uniform(42, 56)),
        aorta=uniform(13, 21),
        mediastinum=uniform(24, 34),
        vertebra=uniform(22.5, 26),
        scoliosis=generator.normal(0, 4),
        lung_density=uniform(0.2, 0.34),
        haze=uniform(0.03, 0.08),
        breast=uniform(0.08, 0.42) if female else 0.0,
        breast_at=(uniform(62, 80), uniform(62, 92)),
        nipples=uniform(0.05, 0.16) if generator.random() < 0.3 else 0.0,
        stomach=uniform(14, 34) if generator.random() < 0.75 else 0.0,
        texture=_texture(generator),
        granulomas=_granulomas(generator, chest, depth),
    )
    ribs = [uniform(-1, 1, 4) for _ in range(RIBS)]
    return replace(anatomy, bones=_bones(anatomy, ribs, step), vessels=draw_vessels(anatomy.mediastinum, generator))


def draw_opacities(anatomy: Anatomy, generator: np.random.Generator) -> tuple[Opacity, ...]:
    """One to three focal opacities in the lungs, from barely visible to plain."""
    found = []
    severity = generator.uniform(0.65, 1.3)
    for _ in range(int(generator.choice(3, p=(0.25, 0.4, 0.35))) + 1):
        side = generator.choice((-1.0, 1.0))
        y = generator.triangular(-95, 55, 95)
        outer, inner = float(anatomy.lung_half_width(y)) - 12, anatomy.mediastinum + 8
        if side > 0 and y > 20:
            inner += 30  # mostly beside the heart, not behind it
        x = side * generator.uniform(min(inner, outer - 1), outer)
        size = float(np.exp(generator.uniform(np.log(20), np.log(60))))
        found.append(
            Opacity(
                centre=(x, y, generator.uniform(-0.28, 0.25) * anatomy.depth),
                radii=(size, size * generator.uniform(0.6, 1.0)),
                tilt=generator.uniform(0, np.pi),
                depth=severity * generator.uniform(0.36, 0.75),
                softness=generator.uniform(0.12, 0.3),
                texture=tuple(generator.uniform(0, 2 * TEXTURE_SIDE, 2)),
            )
        )
    return tuple(found)


def _texture(generator: np.random.Generator) -> np.ndarray:
    """Wrapped noise with power at several scales, mean 0, standard deviation 1, shape (TEXTURE_SIDE, TEXTURE_SIDE)."""
    frequency = np.fft.fftfreq(TEXTURE_SIDE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    filtered = np.fft.fft2(generator.standard_normal((TEXTURE_SIDE, TEXTURE_SIDE))) / (0.02 + radius) ** 1.1
    noise = np.fft.ifft2(filtered * np.exp(-((radius / 0.3) ** 2))).real
    return (noise - noise.mean()) / noise.std()


def _granulomas(generator: np.random.Generator, chest: float, depth: float) -> np.ndarray:
    """Small calcified dots, in some patients; they are no opacities of the label."""
    number = int(generator.integers(1, 4)) if generator.random() < 0.25 else 0
    x = generator.choice((-1.0, 1.0), number) * generator.uniform(0.35, 0.8, number) * chest
    y, z = generator.uniform(-80, 70, number), generator.uniform(-0.2, 0.2, number) * depth
    return np.stack([x, y, z, generator.uniform(1.5, 3.2, number)], axis=1)


def _bones(anatomy: Anatomy, ribs: list[np.ndarray], step: float) -> Cloud:
    """Ribs and clavicles of both sides as one cloud."""
    strips = []
    spacing = (anatomy.domes[0] - anatomy.apex) / 8.9
    for index, wobble in enumerate(ribs):
        head = anatomy.apex - 8 + index * spacing + 1.5 * wobble[0]
        drop = 48 + 7.5 * min(index, 7) + 4 * wobble[1]
        end = (2.45, 2.55, 2.6, 2.62, 2.6, 2.55, 2.45, 2.35, 2.25, 2.15, 1.7, 1.3)[index] + 0.05 * wobble[2]
        half_width = max(float(anatomy.lung_half_width(head + 0.5 * drop)) + 4, 40.0)
        start = float(np.arcsin(22 / half_width))
        angle = np.linspace(start, end, max(int(half_width * 2.2 / step), 8))
        line = np.stack(
            [
                half_width * np.sin(angle) ** 0.9,
                head + 0.5 * drop * (1 - np.cos(angle)) - 7 * np.sin(np.clip(angle / 0.8, 0, np.pi)),
                -0.47 * anatomy.depth * np.cos(angle),
            ],
            axis=1,
        )
        taper = np.clip((end - angle) / 0.25, 0.0, 1.0)  # rib ends fade into cartilage, which is hardly seen
        for side in (-1.0, 1.0):
            strips.append(_strip(line * (side, 1, 1), 6.2 + 0.6 * wobble[3], 5.5 * taper, step))
    along = np.linspace(0, 1, max(int(170 / step), 8))
    clavicle = np.stack(
        [16 + 140 * along, anatomy.apex + 24 - 26 * along - 6 * np.sin(2 * np.pi * along), 0.36 * anatomy.depth - 90 * along],
        axis=1,
    )
    strips += [_strip(clavicle * (side, 1, 1), 6.0, 7.0 * np.ones_like(along), step) for side in (-1.0, 1.0)]
    points, volume = (np.concatenate(parts) for parts in zip(*strips, strict=True))
    return Cloud(points, volume, 0.8)


def _strip(line: np.ndarray, half_height: float, thickness: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A band of points around a line; denser at its rims, where the X-ray runs through cortical bone lengthwise."""
    along = np.gradient(line, axis=0)
    length = np.sqrt((along**2).sum(axis=1))
    normal = np.stack([-along[:, 1], along[:, 0], np.zeros(len(line))], axis=1)
    plane = np.hypot(along[:, 0], along[:, 1])[:, None]
    normal = np.where(plane > 0.2 * length[:, None], normal / np.maximum(plane, 1e-9), (0.0, 1.0, 0.0))
    offset = np.linspace(-1, 1, max(int(2 * half_height / step), 5))
    profile = 0.4 + offset**4
    profile *= 0.75 / profile.mean()
    points = line[:, None, :] + half_height * offset[None, :, None] * normal[:, None, :]
    volume = (length * thickness)[:, None] * profile[None, :] * (2 * half_height / len(offset))
    return points.reshape(-1, 3), volume.reshape(-1)
