"""The vessels of the lungs of one phantom patient, and the cloud of points that they and the bones are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cloud:
    """Points in mm, shape (n, 3), the volume that each stands for in mm^3, shape (n,), and the width of a point in mm."""

    points: np.ndarray
    volume: np.ndarray
    width: float


def draw_vessels(mediastinum: float, generator: np.random.Generator) -> tuple[Cloud, ...]:
    """Arteries and veins that branch from both hila, as three clouds: thick, middle and thin vessels.

    Args:
        mediastinum: its half-width in mm; the hila lie beside it.
        generator: the patient's own stream.
    """
    trees = []
    for side in (-1.0, 1.0):
        hilum = np.array([side * (mediastinum + 8), 4.0 if side < 0 else -8.0, 0.0])
        trees.append(_tree(generator, hilum, np.linspace(-1.3, 1.5, 8) + generator.normal(0, 0.08, 8), side, 3.6))
        if generator.random() < 0.35:  # a cluster of vessels that can be taken for an opacity
            at = np.array([side * generator.uniform(60, 95), generator.uniform(-20, 70), 0.0])
            trees.append(_tree(generator, at, generator.uniform(-3.1, 3.1, 6), side, 1.9))
    points, volume, radius = (np.concatenate(parts) for parts in zip(*trees, strict=True))
    classes = ((2.2, 9.0, 1.6), (1.3, 2.2, 1.0), (0.0, 1.3, 0.5))
    return tuple(
        Cloud(points[chosen], volume[chosen], width)
        for low, high, width in classes
        for chosen in [(low <= radius) & (radius < high)]
    )


def _tree(
    generator: np.random.Generator, root: np.ndarray, angles: np.ndarray, side: float, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, volumes and radii of the branches that leave `root`, a generation of branches at a time.

    Angles are seen from the front, 0 = straight outwards. A branch splits in two until it is thinner than a millimetre.
    """
    at = np.linspace(0, 1, 22)
    begin, angle = root + 1.7 * radius * generator.standard_normal((len(angles), 3)), angles
    rise, radii = generator.uniform(-0.7, 0.7, len(angles)), np.full(len(angles), radius)
    points, volumes, widths = [], [], []
    while len(begin):
        length = generator.uniform(13, 25, len(begin)) * (radii / 3.6) ** 0.3
        bend = generator.normal(0, 0.14, len(begin))
        heading = angle[:, None] + bend[:, None] * at
        way = np.stack([side * np.cos(heading), np.sin(heading), np.broadcast_to(rise[:, None], heading.shape)], axis=2)
        line = begin[:, None, :] + (length[:, None] * at)[:, :, None] * way
        points.append(line.reshape(-1, 3))
        volumes.append(np.repeat(np.pi * radii**2 * length / len(at), len(at)))
        widths.append(np.repeat(radii, len(at)))
        splits = np.repeat(np.flatnonzero(radii > 0.75), 2)
        turn = np.tile((1.0, -1.0), len(splits) // 2)
        begin, rise = line[splits, -1], rise[splits] * generator.uniform(0.3, 1.2, len(splits))
        angle = (angle + bend)[splits] + turn * generator.uniform(0.1, 0.5, len(splits))
        radii = radii[splits] * generator.uniform(0.58, 0.86, len(splits))
    return np.concatenate(points), np.concatenate(volumes), np.concatenate(widths)
