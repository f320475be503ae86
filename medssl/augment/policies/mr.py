"""Views of MR slices and volumes. The scale is arbitrary and differs between scanners; coils, motion and sampling leave marks."""

from medssl.augment.policies.base import GREY, Policy

_INTENSITY = {
    # There is no absolute scale, but there is a zero: air stays black (moved about its centre, the window veiled whole heads).
    "window": {"center_shift": 0.03, "width_factor": [0.8, 1.3], "anchor": "low"},
    # At 0.3 the field changes brightness by up to a third from side to side, as surface coils do before correction.
    "bias_field": {"strength": [0.0, 0.3], "probability": 0.5},
    # A matrix of half the size is the difference between a localizer and a diagnostic series.
    "low_resolution": {"factor": [0.6, 1.0], "probability": 0.2},
    # Up to a third of k-space: ringing that is seen, structures that stay.
    "gibbs": {"alpha": [0.1, 0.45], "probability": 0.15},
    # Breathing and pulsation; stronger ghosts make a scan that is repeated.
    "ghosting": {"strength": [0.1, 0.35], "ghosts": [2, 5], "probability": 0.15},
    # Magnitude images have Rician noise; at 0.03 and a gamma that lifts the dark, air looked like tissue.
    "rician_noise": {"std": [0.0, 0.02], "probability": 0.5},
    # Contrast between tissues depends on TE and TR; a rising curve keeps their order.
    "histogram_warp": {"strength": 0.3, "probability": 0.3},
    "gamma": {"exponent": [0.8, 1.3]},
}
_LEFT_OUT = GREY | {
    "geometry.horizontal_flip": "hemispheres differ and their side is a finding; switch it on where it is not",
    "geometry.vertical_flip": "anterior and posterior are told apart",
    "ct_noise": "the values are not Hounsfield units",
    "ct_kernel": "the values are not Hounsfield units",
    "solarize": "half-inverted slices do not exist",
    "cutout": "a blanked part can be the finding",
}

MR_SLICE = Policy(
    name="mr_slice",
    channels="grey",
    dims=2,
    settings={
        # Heads are turned by some degrees; a slight deformation is how anatomies differ.
        "geometry": {"crop_scale": [0.3, 1.0], "crop_ratio": [0.85, 1.18], "rotation": 15.0, "elastic": 0.1},
    }
    | _INTENSITY,
    leaves_out=_LEFT_OUT,
)

MR_VOLUME = Policy(
    name="mr_volume",
    channels="grey",
    dims=3,
    settings={
        # Half of the volume is four fifths of each side.
        "geometry": {"crop_scale": [0.3, 1.0], "crop_ratio": [0.9, 1.1], "rotation": 15.0, "tilt": 8.0, "elastic": 0.1},
    }
    | _INTENSITY,
    leaves_out=_LEFT_OUT | {"geometry.depth_flip": "head and feet are told apart"},
)
