"""Views of colour fundus photographs: a disc of retina, lit through the pupil."""

from medssl.augment.policies.base import Policy

FUNDUS = Policy(
    name="fundus",
    channels="rgb",
    dims=2,
    settings={
        # Disc and macula must both have a chance to be in a view; microaneurysms are small, so no crop is enlarged much.
        "geometry": {
            "crop_scale": [0.4, 1.0],
            "crop_ratio": [0.9, 1.1],
            # The camera has an up; a head tilts. Right and left eye mirror each other, and the side is no finding
            # (Gulshan et al., JAMA 316, 2016, mirror too).
            "rotation": 20.0,
            "horizontal_flip": 0.5,
        },
        # The flash is off the axis, and the pupil cuts off oblique light.
        "illumination": {"strength": [0.0, 0.25], "probability": 0.5},
        "vignetting": {"strength": [0.0, 0.35], "probability": 0.5},
        # Media opacities and missed focus; drusen and haemorrhages must stay.
        "blur": {"sigma": [0.1, 1.0], "probability": 0.2},
        # Red haemorrhages and yellow exudates are told apart by hue: it moves by no more than pigmentation does.
        "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02},
        "jpeg": {"quality": [60, 95], "probability": 0.2},
    },
    leaves_out={
        "grayscale": "haemorrhages and exudates are told apart by colour",
        "stain_jitter": "it is for H&E stains",
        "solarize": "half-inverted images do not exist",
        "geometry.vertical_flip": "the vessels' arcades tell up from down in a graded eye",
    },
)
