"""Optical depth of a phantom patient: how much the body weakens the beam at each pixel, frontal or from the side.

Modelled: a body wall and shoulders, two lungs with apices, domes of the diaphragm and costophrenic angles, the heart with the
aortic arch, the trachea, vertebrae, ribs and clavicles as projected point clouds, shoulder joints, vessels, breasts and nipples, a gastric air
bubble, fine lung texture, focal opacities. Each is added in units of optical depth (natural logarithm of the weakening).
Not modelled: energy dependence of the beam, cone geometry beyond one magnification, cartilage, any disease but focal opacities,
and the reading of any of it by people. The drawing is schematic and shows nothing about real patients.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from medssl.data.phantom.anatomy import TEXTURE_SIDE, Anatomy, Cloud, Opacity
from medssl.data.phantom.projection import Plane, Pose, rounded, step

SOFT_TISSUE = 0.0125  # 1/mm, effective
BONE = 0.030  # 1/mm, more than the soft tissue it replaces

Across = Callable[[np.ndarray], np.ndarray]  # from the patient's x, y, z to the position across the image, mm


def frontal(anatomy: Anatomy, opacities: tuple[Opacity, ...], plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """Optical depth seen from the front, float64 (rows, columns), 0 in air; and the aerated share of the lungs in [0, 1]."""
    x, y = plane.x / anatomy.build, plane.y / anatomy.build
    yaw = plane.pose.yaw
    body = _body(anatomy, x, y)
    heart = _heart(anatomy, x, y, plane.pose, yaw)
    air = _lungs(anatomy, x, y, plane.pose, heart)
    inflated = SOFT_TISSUE * 0.74 * anatomy.depth
    depth = SOFT_TISSUE * body - inflated * (1 - anatomy.lung_density) * air + _mediastinum(anatomy, x, y, yaw)
    depth += inflated * 0.1 * heart
    depth += 1.9 * np.sqrt(air) * _vessels(anatomy, plane, lambda points: points[:, 0] + yaw * points[:, 2])
    depth += air * anatomy.haze * _texture(anatomy, x, y, (0.0, 0.0))
    depth += BONE * _project(plane, anatomy, anatomy.bones, lambda points: points[:, 0] + yaw * points[:, 2])
    depth += _shoulders(anatomy, x, y) + _breasts(anatomy, x, y)
    depth += _calcified(anatomy, x, y, lambda at: at[0] + yaw * at[2])
    if opacities:
        depth += np.minimum(air * 1.3, 1.0) * _consolidated(
            anatomy, opacities, x, y, [opacity.centre[0] + yaw * opacity.centre[2] for opacity in opacities]
        )
    return np.maximum(depth, 0.0) * step(body - 12, 6), air


def lateral(anatomy: Anatomy, opacities: tuple[Opacity, ...], plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """As `frontal`, seen from the patient's left side with the front at the image's left."""
    z, y = -plane.x / anatomy.build, plane.y / anatomy.build
    front = 0.5 * anatomy.depth * (0.86 + 0.14 * np.tanh((y + 90) / 60)) + 0.7 * anatomy.wall + 4
    back = -0.5 * anatomy.depth + 16 * ((y - 10) / 130) ** 2 - 0.9 * anatomy.wall - 6
    middle, half = (front + back) / 2, (front - back) / 2
    roundness = np.sqrt(np.clip(1 - ((z - middle) / half) ** 2, 0, 1))
    body = 1.45 * anatomy.chest * roundness * (1 + 0.35 * step(-y - 85, 25))
    air, heart = _side_lungs(anatomy, z, y, front, back, plane.pose)
    depth = SOFT_TISSUE * (body - 0.75 * 1.45 * anatomy.chest * (1 - anatomy.lung_density) * air) + 0.16 * heart
    spine = z - anatomy.spine_z(y)
    phase = np.mod((y + 4) / anatomy.vertebra, 1.0)
    vertebra = step(13 - np.abs(spine), 1.5) * (0.35 + 0.65 * step(0.36 - np.abs(phase - 0.5), 0.05))
    depth += 0.42 * vertebra + 0.2 * step(6 - np.abs(spine + 28), 4) * step(0.3 - np.abs(phase - 0.7), 0.1)
    depth += 0.22 * step(4 - np.abs(z - front + 0.6 * anatomy.wall + 7), 2) * step(95 - np.abs(y + 10), 8)  # sternum
    depth += 0.5 * BONE * _project(plane, anatomy, anatomy.bones, lambda points: -points[:, 2])
    depth += air * (
        0.7 * _vessels(anatomy, plane, lambda points: -points[:, 2]) + anatomy.haze * _texture(anatomy, z, y, (99, 0))
    )
    if opacities:
        depth += np.minimum(air * 1.3, 1.0) * _consolidated(
            anatomy, opacities, z, y, [opacity.centre[2] for opacity in opacities]
        )
    depth += _calcified(anatomy, z, y, lambda at: at[2])
    return np.maximum(depth, 0.0) * step(half - np.abs(z - middle) - 3, 3), air


def _project(plane: Plane, anatomy: Anatomy, cloud: Cloud, across: Across) -> np.ndarray:
    build = anatomy.build
    return plane.project(build * across(cloud.points), build * cloud.points[:, 1], build**3 * cloud.volume, cloud.width)


def _vessels(anatomy: Anatomy, plane: Plane, across: Across) -> np.ndarray:
    return SOFT_TISSUE * sum(_project(plane, anatomy, cloud, across) for cloud in anatomy.vessels)


def _body(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Thickness of the trunk with shoulders and neck, as if the lungs were soft tissue, in mm."""
    trunk = anatomy.chest + anatomy.wall + 6 - 10 * step(-y - 40, 40)
    shoulders = 75 * step(-y - 62, 26)
    reach = np.abs(x) + 40
    top = anatomy.apex - 62 + 0.0108 * reach * np.sqrt(reach)  # the trapezius falls to the shoulder
    slope, neck = step(y - top, 9), step(56 - np.abs(x), 9)
    thick = anatomy.depth * (1 + 0.1 * step(y - 90, 30) - 0.22 * step(-y - 80, 30)) + 0.5 * anatomy.wall
    return thick * rounded(np.abs(x) / (trunk + shoulders)) * (1 - (1 - slope) * (1 - 0.8 * neck))


def _heart(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, pose: Pose, yaw: float) -> np.ndarray:
    """The heart's share of the depth at each pixel, in [0, 1], with a soft border."""
    long, short, tilt = anatomy.heart
    dx = x - anatomy.heart_centre[0] - 40 * yaw
    dy = y - anatomy.heart_centre[1] - 0.4 * pose.breath
    cos, sin = np.cos(tilt), np.sin(tilt)
    along, across = (cos * dx + sin * dy) / (long * pose.heart), (-sin * dx + cos * dy) / (short * pose.heart)
    radius = np.sqrt(along**2 + across**2)
    return step((1 - radius) * 50, 2.2) * (0.72 + 0.28 * np.sqrt(np.clip(1 - radius**2, 0, 1)))


def _lungs(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, pose: Pose, heart: np.ndarray) -> np.ndarray:
    """Aerated share of the chest's depth at each pixel, in [0, 1], both lungs."""
    side = np.abs(x - anatomy.spine_x(y))
    outer = anatomy.lung_half_width(y)
    inner = anatomy.mediastinum - 10 * step(-y - 75, 12) + 5 * step(y - 40, 30)
    thickness = rounded(side / np.maximum(outer, 1e-3)) * step(outer - side, 1.2)
    apex = np.sqrt(np.clip((y - anatomy.apex) / 60, 0, 1))
    dome_at = np.where(x < 0, 0.56, 0.6) * anatomy.chest
    dome = np.where(x < 0, anatomy.domes[0], anatomy.domes[1]) + pose.breath
    beyond = (side - dome_at) / anatomy.chest
    floor = dome + np.where(beyond > 0, 210.0, 60.0) * beyond**2 * np.where(beyond > 0, 1.0, 1.2)
    above = step(floor - y, 1.8)
    sulcus = 0.16 * np.exp(-np.maximum(y - floor, 0) / 14) * (1 - above)  # the lung behind the dome
    medial = 0.06 + 0.94 * step(side - inner, 3.0)
    arch = np.hypot(x - anatomy.mediastinum + 0.4 * anatomy.aorta, 0.85 * (y + 50))
    medial = medial * (1 - 0.75 * step(anatomy.aorta - arch, 1.8))
    return thickness * apex * (above + sulcus) * medial * (1 - 0.86 * heart)


def _mediastinum(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, yaw: float) -> np.ndarray:
    """Spine, aortic arch, descending aorta, trachea with main bronchi, gastric bubble: optical depth, air negative."""
    spine = x - anatomy.spine_x(y) + 70 * yaw
    phase = np.mod((y + 4) / anatomy.vertebra, 1.0)
    plate = np.abs(phase - 0.5)
    half = 17 + 0.018 * (y + 120) + 1.5 * np.cos(2 * np.pi * phase)
    depth = 0.3 * step(half - np.abs(spine), 1.5) * (0.55 + 0.45 * step(0.4 - plate, 0.06))
    pedicles = ((np.abs(spine) - 11) / 3.2) ** 2 + ((phase - 0.38) * anatomy.vertebra / 4.5) ** 2
    process = (spine / 2.6) ** 2 + ((phase - 0.75) * anatomy.vertebra / 5.5) ** 2
    depth += 0.14 * np.exp(-(pedicles**2)) + 0.16 * np.exp(-(process**2))
    descending = step(13 - np.abs(x - anatomy.mediastinum + 10 + 0.05 * y), 1.8) * step(y + 46, 6) * step(95 - y, 12)
    depth += 0.1 * descending
    trachea = step(8.5 - np.abs(x - 1.5), 1.6) * step(-y - 20, 3)
    bronchi = step(6 - np.abs(y + 14 - 0.75 * np.abs(x)), 1.6) * step(np.abs(x) - 2, 2) * step(34 - np.abs(x), 5)
    depth -= 0.2 * np.maximum(trachea, 0.8 * bronchi)
    if anatomy.stomach:
        bubble = np.hypot((x - 0.55 * anatomy.chest) / 1.25, y - anatomy.domes[1] - anatomy.stomach - 10) / anatomy.stomach
        depth -= 0.45 * step((1 - bubble) * 30, 4) * step(y - anatomy.domes[1] - 8, 3)
    return depth


def _side_lungs(
    anatomy: Anatomy, z: np.ndarray, y: np.ndarray, front: np.ndarray, back: np.ndarray, pose: Pose
) -> tuple[np.ndarray, np.ndarray]:
    """Aerated share and heart share, in [0, 1], seen from the side."""
    along = np.clip((y - anatomy.apex) / 120, 0, 1)
    open_ = 0.25 + 0.75 * along**0.6
    ventral, dorsal = front - 0.7 * anatomy.wall - 16, back + 0.9 * anatomy.wall + 20
    middle = 0.5 * (ventral + dorsal) - 12 * (1 - along)
    half = np.maximum(0.5 * (ventral - dorsal) * open_, 1.0)
    inside = rounded(np.abs(z - middle) / half) * step(half - np.abs(z - middle), 1.5)
    air = inside * np.sqrt(np.clip((y - anatomy.apex) / 40, 0, 1))
    floors = [
        dome + pose.breath + 0.006 * np.maximum(20 - z, 0) ** 2 + 0.003 * np.maximum(z - 20, 0) ** 2 for dome in anatomy.domes
    ]
    air = air * (0.5 * step(floors[0] - y, 1.8) + 0.5 * step(floors[1] - y, 1.8))
    long, short, _ = anatomy.heart
    dz, dy = z - 28, y - anatomy.heart_centre[1]
    radius = np.hypot((0.8 * dz + 0.6 * dy) / (0.8 * short), (-0.6 * dz + 0.8 * dy) / (0.8 * long))
    heart = step((1 - radius) * 45, 9)
    return air * (1 - 0.55 * heart), heart


def _shoulders(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Heads of the humerus and the lateral borders of the shoulder blades: optical depth."""
    side = np.abs(x)
    head = np.hypot(side - anatomy.chest - 46, y - anatomy.apex - 20)
    shaft = step(11 - np.abs(side - anatomy.chest - 54 - 0.25 * (y - anatomy.apex - 20)), 2) * step(y - anatomy.apex - 24, 6)
    border = side - anatomy.chest - 26 + 0.3 * (y - anatomy.apex - 30)
    blade = step(y - anatomy.apex - 28, 8) * step(anatomy.apex + 150 - y, 10)
    plate = blade * (0.3 * step(-border, 2) * step(60 + border, 14) + np.exp(-((border / 3.0) ** 2)))
    return 0.3 * np.maximum(step(23 - head, 2), 0.8 * shaft) + 0.13 * plate


def _breasts(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Breast shadows with a lower fold, and nipples: optical depth."""
    dx, dy = np.abs(x) - anatomy.breast_at[0], y - anatomy.breast_at[1] - 8
    depth = np.zeros_like(x)
    if anatomy.breast:
        radius = np.hypot(dx / 56, dy / np.where(dy > 0, 40, 75))
        depth += anatomy.breast * np.sqrt(np.clip(1 - radius**2, 0, 1))
    if anatomy.nipples:
        depth += anatomy.nipples * step(4.5 - np.hypot(dx - 6, dy - 8), 1.3)
    return depth


def _calcified(anatomy: Anatomy, across: np.ndarray, y: np.ndarray, place: Across) -> np.ndarray:
    """Small calcified granulomas: optical depth."""
    depth = np.zeros_like(y)
    for granuloma in anatomy.granulomas:
        radius = granuloma[3]
        depth += 0.1 * radius * step(radius - np.hypot(across - place(granuloma), y - granuloma[1]), 0.8)
    return depth


def _texture(anatomy: Anatomy, across: np.ndarray, y: np.ndarray, start: tuple[float, float]) -> np.ndarray:
    """The patient's texture, 2 mm a node, wrapped around, at millimetre positions shifted by `start`."""
    nodes = np.mod(np.stack([y + start[1], across + start[0]]) / 2.0, TEXTURE_SIDE)
    return ndimage.map_coordinates(anatomy.texture, nodes, order=1, mode="grid-wrap")


def _consolidated(
    anatomy: Anatomy, opacities: tuple[Opacity, ...], across: np.ndarray, y: np.ndarray, centres: list[float]
) -> np.ndarray:
    """Optical depth of all opacities: where they overlap, that of the denser one."""
    parts = [_opacity(anatomy, *place, across, y) for place in zip(opacities, centres, strict=True)]
    return np.maximum.reduce(parts)


def _opacity(anatomy: Anatomy, opacity: Opacity, centre: float, across: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Optical depth of one opacity: a soft ellipse with an uneven border and a patchy inside."""
    dx, dy = across - centre, y - opacity.centre[1]
    cos, sin = np.cos(opacity.tilt), np.sin(opacity.tilt)
    radius = np.hypot((cos * dx + sin * dy) / opacity.radii[0], (-sin * dx + cos * dy) / opacity.radii[1])
    pattern = _texture(anatomy, dx, dy, opacity.texture)
    return opacity.depth * step(1 - radius + 0.14 * pattern, opacity.softness) * np.clip(1 + 0.17 * pattern, 0.4, 1.6)
