"""Views of skin photographs and dermoscopy: no up or down, any light, colour is a criterion."""

from medssl.augment.policies.base import Policy

DERMATOLOGY = Policy(
    name="dermatology",
    channels="rgb",
    dims=2,
    settings={
        "geometry": {
            # The lesion is in the middle and fills a third or more; symmetry and border are criteria (ABCD rule, Stolz et al. 1994),
            # so crops keep most of it and do not deform it.
            "crop_scale": [0.4, 1.0],
            "crop_ratio": [0.9, 1.1],
            "rotation": 180.0,
            "horizontal_flip": 0.5,
            "vertical_flip": 0.5,
        },
        "illumination": {"strength": [0.0, 0.25], "probability": 0.5},
        "vignetting": {"strength": [0.0, 0.3], "probability": 0.3},
        "blur": {"sigma": [0.1, 1.2], "probability": 0.2},
        # Cameras' white balance; beyond that, brown, blue and red, which are criteria, would be exchanged.
        "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03},
        "jpeg": {"quality": [60, 95], "probability": 0.2},
    },
    leaves_out={
        "grayscale": "colour is a criterion",
        "stain_jitter": "it is for H&E stains",
        "solarize": "half-inverted images do not exist",
    },
)
