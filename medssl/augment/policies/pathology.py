"""Views of H&E tiles: a slide has no up or down, and no two laboratories stain alike."""

from medssl.augment.policies.base import Policy

PATHOLOGY = Policy(
    name="pathology",
    channels="rgb",
    dims=2,
    settings={
        "geometry": {
            # Nuclei fill little of a tile; below a third their size, which grades a tumour, is no longer comparable.
            "crop_scale": [0.35, 1.0],
            "crop_ratio": [0.9, 1.1],  # the shape of nuclei is read
            # Orientation on the glass is chance: all eight symmetries (Tellez et al., Med. Image Anal. 58, 2019, section 3.1).
            "horizontal_flip": 0.5,
            "vertical_flip": 0.5,
            "quarter_turns": True,
        },
        # Between the "light" (0.05) and "strong" (0.2) of Tellez et al. 2019 in scale. Not their shift: on contact sheets 0.01
        # already turned bare glass green.
        "stain_jitter": {"scale": 0.1, "shift": 0.003},
        # Scanners focus on a grid of points; tissue between them can be out of focus.
        "blur": {"sigma": [0.1, 1.2], "probability": 0.2},
        # Small brightness and contrast of the scanner's lamp; colour itself is the stain's matter.
        "color_jitter": {"brightness": 0.1, "contrast": 0.15, "saturation": 0.1, "hue": 0.0},
        # Slides are stored as JPEG of quality 70 to 90; compression artefacts differ between scanners.
        "jpeg": {"quality": [60, 95], "probability": 0.3},
    },
    leaves_out={
        "grayscale": "haematoxylin and eosin are told apart by colour alone",
        "solarize": "half-inverted slides do not exist",
        "bias_field": "it is for coils",
        "geometry.elastic": "the shape of nuclei is read",
    },
)
