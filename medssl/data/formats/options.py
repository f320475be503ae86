"""How a data set's files are to be read: the `read:` block of a data card."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medssl.strict import StrictModel


class SlideOptions(StrictModel):
    """Tiles of whole-slide images."""

    tile: int = Field(default=224, ge=32, le=4096, description="Side of a tile, px at `mpp`")
    mpp: float | None = Field(default=None, gt=0, description="Micrometres a pixel; null: the slide's full resolution")
    tissue: float = Field(default=0.5, ge=0, le=1, description="Least share of a tile that is tissue; 0: every tile")


class MaskOptions(StrictModel):
    """Label maps beside the images."""

    image: str = Field(description="Regular expression that an image's path matches; its group `case` names the case")
    mask: str = Field(description="Regular expression that a label map's path matches; its group `case` names the case")
    required: bool = Field(default=True, description="An image without a label map is a reject; false: it is read without")


class ReadOptions(StrictModel):
    """What is made of the files of a data set; each format looks at what concerns it."""

    units: Literal["images", "slices", "volumes"] = Field(
        default="images",
        description="images: one a file, frame or tile; slices: volumes cut along `axis`; volumes: whole",
    )
    channels: Literal["grey", "rgb"] = Field(
        default="grey",
        description="grey: colour images are rejects unless their content is grey; rgb: all images have three channels",
    )
    window: int | Literal["lut"] | str = Field(
        default=1,
        description="DICOM: number of the window in the file, from 1; its explanation; or lut, the VOI LUT where there is one",
    )
    axis: Literal["axial", "coronal", "sagittal"] = Field(
        default="axial", description="slices: the axis along which they are cut"
    )
    time: Literal["refuse", "split"] = Field(default="refuse", description="Images with a fourth axis")
    least_slices: int = Field(default=4, ge=2, description="DICOM volumes: a series of fewer slices is a localizer")
    masks: MaskOptions | None = None
    slide: SlideOptions = SlideOptions()
