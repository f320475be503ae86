"""Views of CT slices and volumes. Hounsfield units are absolute: what a view may change is the window, the dose, the kernel."""

from medssl.augment.policies.base import GREY, Policy

# Dose: 5 to 30 HU in soft tissue is what scanners are set to; noise is added to what the image has.
_DOSE = {"std": [0.0, 20.0], "probability": 0.5}
# Vendors' smooth and sharp kernels; beyond half, lung vessels grow rims.
_KERNEL = {"amount": 0.5, "sigma": [0.6, 1.2], "probability": 0.5}
# The windows that readers choose differ; HU themselves do not, so the shift is small.
_WINDOW = {"center_shift": 0.06, "width_factor": [0.85, 1.25]}
_LEFT_OUT = GREY | {
    "geometry.horizontal_flip": "liver and heart tell left from right; situs inversus is a finding",
    "geometry.vertical_flip": "the table lies below the patient; prone scans are rare",
    "gamma": "the window is linear in HU; a gamma curve is nothing that a CT viewer has",
    "bias_field": "CT has no coil",
    "rician_noise": "CT noise is not Rician",
    "blur": "ct_kernel does it within what kernels do",
    "solarize": "half-inverted slices do not exist",
    "cutout": "a blanked part can be the finding",
}

CT_SLICE = Policy(
    name="ct_slice",
    channels="grey",
    dims=2,
    settings={
        "geometry": {
            # A slice is air around the patient; a third of it still holds an organ.
            "crop_scale": [0.3, 1.0],
            # Patients differ in girth more than in shape; the ratio of organs is kept within a fifth.
            "crop_ratio": [0.85, 1.18],
            "rotation": 10.0,  # how patients lie on the table
        },
        "ct_kernel": _KERNEL,
        "ct_noise": _DOSE,
        "window": _WINDOW,
    },
    leaves_out=_LEFT_OUT,
)

CT_VOLUME = Policy(
    name="ct_volume",
    channels="grey",
    dims=3,
    settings={
        "geometry": {
            # In millimetres, since fields of view differ by a factor of three: at 64 voxels these are 1 to 2.5 mm each.
            "crop_mm": [64.0, 160.0],
            "crop_ratio": [0.9, 1.1],
            "rotation": 10.0,
            "tilt": 5.0,
        },
        "ct_kernel": _KERNEL,
        "ct_noise": _DOSE,
        "window": _WINDOW,
    },
    leaves_out=_LEFT_OUT | {"geometry.depth_flip": "head and feet are told apart"},
)
