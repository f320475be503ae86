"""Which images of a patient count as related: the blocks of `positive_pairs` in a data card."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medssl.strict import StrictModel


class AdjacentTile(StrictModel):
    """Tiles near on the grid of one slide; at the defaults the 8 around it (SimTriplet, 2103.05585, section 2.1)."""

    kind: Literal["adjacent_tile"]
    radius: int = Field(default=1, ge=1, le=16, description="Most rows or columns from a tile to the other")
    diagonal: bool = Field(default=True, description="They may differ in row and column; false: they share one of them")


class AdjacentSlice(StrictModel):
    """Slices near in one series."""

    kind: Literal["adjacent_slice"]
    radius: int | None = Field(default=None, ge=1, le=10_000, description="Most slices from one to the other")
    radius_mm: float | None = Field(default=None, gt=0, le=10_000, description="Largest distance, mm along the slices' normal")

    @model_validator(mode="after")
    def _has_one_radius(self) -> AdjacentSlice:
        if (self.radius is None) == (self.radius_mm is None):
            raise ValueError("adjacent_slice needs exactly one of radius (slices) and radius_mm")
        return self


class SameSeries(StrictModel):
    """Any other image of the series."""

    kind: Literal["same_series"]


class SameStudyOtherView(StrictModel):
    """Another view of the same study, such as LL for PA; after MedAug (2102.10663), which pairs by study and laterality."""

    kind: Literal["same_study_other_view"]
    laterality: Literal["kept", "free"] = Field(
        default="free",
        description="free: another view or another side; kept: another view of the same side; a side that the file does not "
        "say is a side of its own",
    )


class SamePatientOtherDate(StrictModel):
    """An image of the same patient of another day."""

    kind: Literal["same_patient_other_date"]


class SamePatient(StrictModel):
    """Any other image of the patient (MICLe, 2101.05224), for sets that know neither studies nor dates."""

    kind: Literal["same_patient"]


PairKind = Annotated[
    AdjacentTile | AdjacentSlice | SameSeries | SameStudyOtherView | SamePatientOtherDate | SamePatient,
    Field(discriminator="kind"),
]
