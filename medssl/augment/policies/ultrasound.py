"""Views of B-mode ultrasound: the transducer is above, depth runs down, gain is a knob."""

from medssl.augment.policies.base import Policy

ULTRASOUND = Policy(
    name="ultrasound",
    channels="any",
    dims=2,
    settings={
        # The sector is framed by black and text; a small crop holds nothing but speckle. Depth and width are not exchanged,
        # but the pulse makes anatomy as wide as it likes: an eighth.
        "geometry": {"crop_scale": [0.4, 1.0], "crop_ratio": [0.88, 1.14], "rotation": 10.0, "horizontal_flip": 0.5},
        # Overall gain; what is black around the sector stays black.
        "window": {"width_factor": [0.8, 1.3], "anchor": "low"},
        # Time gain compensation.
        "depth_attenuation": {"strength": 0.6, "probability": 0.5},
        # Ribs, gas, stones; not often, because a shadow can be the finding.
        "sector_shadow": {"strength": [0.2, 0.6], "width": [0.05, 0.15], "probability": 0.15},
        "speckle": {"std": [0.0, 0.15], "probability": 0.5},
        "gamma": {"exponent": [0.75, 1.35]},  # the display's compression curve
    },
    leaves_out={
        "color_jitter": "the colours are the scale of the Doppler",
        "grayscale": "the colours are the scale of the Doppler",
        "stain_jitter": "it is for H&E stains",
        "geometry.vertical_flip": "the transducer is above: depth, attenuation and shadows run down",
        "geometry.quarter_turns": "depth runs down",
        "blur": "the size of speckle is how tissue is told apart",
        "solarize": "half-inverted images do not exist",
    },
)
