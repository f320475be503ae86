"""The papers' own views of natural images, for comparison: what a method was published with, not what medical images need."""

from medssl.augment.policies.base import Policy

SIMCLR_NATURAL = Policy(
    name="simclr_natural",
    channels="any",
    dims=2,
    # SimSiam (2011.10566, section 4) with PyTorch's notation, after MoCo v2 and SimCLR (2002.05709, appendix A). The colour steps
    # come in a fixed order here, not a random one; on grey images hue, saturation and greyscale have nothing to change.
    settings={
        "geometry": {"crop_scale": [0.2, 1.0], "crop_ratio": [3 / 4, 4 / 3], "horizontal_flip": 0.5},
        "blur": {"sigma": [0.1, 2.0], "probability": 0.5},
        "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8},
        "grayscale": {"probability": 0.2},
    },
)
