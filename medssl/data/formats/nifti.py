"""NIfTI-1 in one file (.nii, .nii.gz): volumes in RAS, slices in display order, and label maps beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.data.formats.finding import find_files
from medssl.data.formats.guard import guarded
from medssl.data.formats.items import Header, Image, Item, RefusedError, Reject, Volume
from medssl.data.formats.opening import open_inside
from medssl.data.formats.options import MaskOptions, ReadOptions
from medssl.errors import CardError

if TYPE_CHECKING:
    import numpy as np

    from medssl.data.formats.nifti_file import NiftiFile

SUFFIXES = (".nii", ".nii.gz")
AFFINE_TOLERANCE = 1e-3
"""Largest difference of a term of the affines of an image and its label map, mm."""


class NiftiReader:
    """Files with the suffix .nii or .nii.gz, members of .zip and .tar among them.

    `units: volumes` gives a volume a file; `images` and `slices` both give its slices along `axis`. `time: split` makes a
    volume of each time point, whose index is `Header.frame`.
    """

    name = "nifti"

    def find(
        self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> list[Item | Reject]:
        """One item a file, with its label map where `options.masks` says where they lie; see `Reader.find`.

        An image without a label map that must have one is a "no_mask", a label map without an image a "no_image".

        Raises:
            CardError: a pattern of `options.masks` is no regular expression, or has no group `case`.
        """
        paths = [path for path in find_files(root, include, exclude, archives=True) if _is_candidate(path)]
        return [Item(path) for path in paths] if options.masks is None else _paired(paths, options.masks)

    def read(
        self, root: Path, item: Item, tags: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> Iterator[Image | Volume | Reject]:
        """The volumes or slices of one file; see `Reader.read`. NIfTI has no tags: `tags` is ignored."""
        yield from guarded(item, lambda: _read_item(root, item, options))


def _is_candidate(path: str) -> bool:
    # "!/" alone stands for an archive that cannot be read: reading it says what is the matter.
    return path.lower().endswith(SUFFIXES) or path.endswith("!/")


def _paired(paths: list[str], masks: MaskOptions) -> list[Item | Reject]:
    """Images with their label maps, by the groups `case` of the two patterns. A path that both match is a label map."""
    image_case, mask_case = _case_finder("image", masks.image), _case_finder("mask", masks.mask)
    cases = {path: mask_case(path) for path in paths}
    found: list[Item | Reject] = []
    maps: dict[str, str] = {}
    for path, case in cases.items():
        if case is not None and maps.setdefault(case, path) != path:
            found.append(Reject(Item(path), "no_image", "another label map has its case"))
    used = set()
    for path in (path for path in paths if cases[path] is None):
        case = image_case(path)
        item = Item(path, mask=maps.get(case) if case is not None else None)
        used.add(case)
        found.append(Reject(item, "no_mask") if item.mask is None and masks.required else item)
    found += [Reject(Item(path), "no_image") for case, path in maps.items() if case not in used]
    return sorted(found, key=lambda one: (one.item if isinstance(one, Reject) else one).path)


def _case_finder(key: str, pattern: str) -> Callable[[str], str | None]:
    """The group `case` of where `pattern` is found in a path; None where it is not."""
    try:
        expression = re.compile(pattern)
    except re.error as problem:
        raise CardError(f"read.masks.{key}: is not a regular expression ({problem}); correct it in the data card") from None
    if "case" not in expression.groupindex:
        raise CardError(f"read.masks.{key}: has no group (?P<case>...); add one around what names the case")

    def case_of(path: str) -> str | None:
        match = expression.search(path)
        return match and match["case"]

    return case_of


def _read_item(root: Path, item: Item, options: ReadOptions) -> Iterator[Image | Volume | Reject]:
    from medssl.data.formats.orientation import cut

    for volume in _read_volumes(root, item, options):
        if options.units == "volumes":
            yield volume
        else:
            yield from cut(item, volume, options.axis)


def _read_volumes(root: Path, item: Item, options: ReadOptions) -> Iterator[Volume]:
    import nibabel

    from medssl.data.formats.nifti_file import open_nifti
    from medssl.data.formats.orientation import geometry

    if options.channels == "rgb":
        raise RefusedError("unsupported_type", "grey volumes in a set of colour images")
    with open_inside(root, item.path) as file:
        nifti = open_nifti(file)
        if nifti.times > 1 and options.time == "refuse":
            raise RefusedError("four_dimensional", f"{nifti.times} volumes")
        mask = None if item.mask is None else _read_mask(root, item.mask, nifti)
        for time in range(nifti.times):
            voxels, slope, intercept, ends = nifti.read(time)
            yield Volume(
                voxels=voxels,
                affine=nifti.axes.affine,
                slope=slope,
                intercept=intercept,
                full_range=ends,
                mask=mask,
                header=replace(Header(frame=time), **geometry(nifti.axes.affine)),
                syntax="NIfTI",
                decoder=f"nibabel {nibabel.__version__}",
            )


def _read_mask(root: Path, path: str, image: NiftiFile) -> np.ndarray:
    """The label map (D, H, W) uint8, in the axes of its image.

    Raises:
        RefusedError: as for an image, with "label map" in the detail; "mask_mismatch" or "mask_values".
    """
    import numpy as np

    from medssl.data.formats.nifti_file import open_nifti

    try:
        with open_inside(root, path) as file:
            mask = open_nifti(file)
            if mask.times > 1:
                raise RefusedError("four_dimensional", f"{mask.times} volumes")
            if mask.axes.shape != image.axes.shape:
                raise RefusedError("mask_mismatch", f"shape {mask.axes.shape[::-1]} for an image of {image.axes.shape[::-1]}")
            difference = float(np.abs(mask.affine - image.affine).max())
            if difference > AFFINE_TOLERANCE:
                raise RefusedError("mask_mismatch", f"affines differ by {difference:.3g} mm")
            return mask.read_labels(image.axes)
    except RefusedError as refusal:
        about_map = refusal.reason.startswith("mask_")
        raise RefusedError(refusal.reason, refusal.detail if about_map else f"label map: {refusal.detail}") from refusal
