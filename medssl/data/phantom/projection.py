"""How the phantom patient is projected on the detector: the pose, the plane of pixels, and the soft edges of shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Pose:
    """How the patient stands before the detector: rotation (radians), magnification, shift (mm), yaw (shift in x a mm of z),
    descent of the diaphragm (mm), magnification of the heart."""

    angle: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0
    breath: float = 0.0
    heart: float = 1.0


class Plane:
    """The detector: `rows` x `columns` pixels of `pixel` mm, and the patient's millimetres (`x`, `y`) at each pixel."""

    def __init__(self, rows: int, columns: int, pixel: float, pose: Pose) -> None:
        self.shape, self.pixel, self.pose = (rows, columns), pixel, pose
        down, across = np.indices((rows, columns), dtype=np.float64)
        across, down = (across - (columns - 1) / 2) * pixel, (down - (rows - 1) / 2) * pixel
        across, down = across - pose.shift[0], down - pose.shift[1]
        cos, sin = np.cos(pose.angle) / pose.scale, np.sin(pose.angle) / pose.scale
        self.x, self.y = cos * across + sin * down, -sin * across + cos * down

    def project(self, across: np.ndarray, down: np.ndarray, volume: np.ndarray, width: float) -> np.ndarray:
        """Thickness in mm, shape (rows, columns), of points given in the patient's mm, spread over `width` mm."""
        rows, columns = self.shape
        cos, sin = np.cos(self.pose.angle) * self.pose.scale, np.sin(self.pose.angle) * self.pose.scale
        column = (cos * across - sin * down + self.pose.shift[0]) / self.pixel + (columns - 1) / 2
        row = (sin * across + cos * down + self.pose.shift[1]) / self.pixel + (rows - 1) / 2
        inside = (row >= 0) & (row < rows - 1) & (column >= 0) & (column < columns - 1)
        row, column = row[inside], column[inside]
        top, left = row.astype(np.int64), column.astype(np.int64)
        below, right = row - top, column - left
        weight = volume[inside] * (self.pose.scale / self.pixel) ** 2
        thickness = np.zeros(rows * columns)
        for rise, part_y in ((0, 1 - below), (1, below)):
            for run, part_x in ((0, 1 - right), (1, right)):
                index = (top + rise) * columns + left + run
                thickness += np.bincount(index, weight * part_y * part_x, minlength=rows * columns)
        return ndimage.gaussian_filter(thickness.reshape(rows, columns), max(width / self.pixel, 0.35), mode="constant")


def step(distance: np.ndarray, softness: float) -> np.ndarray:
    """0 below -1.6 `softness`, 1 above 1.6 `softness`, a cubic in between: arithmetic that is the same on every machine."""
    rise = np.multiply(distance, 0.3125 / softness)
    rise += 0.5
    np.clip(rise, 0.0, 1.0, out=rise)
    share = 3.0 - 2.0 * rise
    share *= rise
    share *= rise
    return share


def rounded(share: np.ndarray) -> np.ndarray:
    """Profile of a cross-section between a circle's and a box's: 1 in the middle (share 0), 0 from the edge (share 1) on."""
    share = np.clip(share, 0.0, 1.0)
    return np.sqrt(1.0 - share * share * np.sqrt(share))
