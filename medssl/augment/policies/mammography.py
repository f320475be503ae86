"""Views of mammograms: findings of a fraction of a millimetre in an image of which half is air."""

from medssl.augment.policies.base import GREY, Policy

MAMMOGRAPHY = Policy(
    name="mammography",
    channels="grey",
    dims=2,
    settings={
        "geometry": {
            # Much of the image is air; a small crop can miss the breast. Half of the area at least keeps tissue in both views.
            "crop_scale": [0.5, 1.0],
            # Compressed tissue has no fixed aspect, but the shape of a mass (round, lobular) is read: a tenth only.
            "crop_ratio": [0.9, 1.1],
            # Positioning turns the breast by some degrees between visits.
            "rotation": 15.0,
            # Right and left breast mirror each other, and the side is no finding: Lotter et al., Nat. Med. 27 (2021), mirror too.
            "horizontal_flip": 0.5,
        },
        # Dose and processing differ between vendors; the windows of presentation images are close to what is read.
        "window": {"center_shift": 0.05, "width_factor": [0.9, 1.25]},
        # Microcalcifications are single bright pixels: noise must stay below them.
        "noise": {"std": [0.0, 0.01]},
        "gamma": {"exponent": [0.8, 1.25]},
    },
    leaves_out=GREY
    | {
        "blur": "microcalcifications disappear",
        "low_resolution": "microcalcifications disappear",
        "geometry.vertical_flip": "the nipple and the pectoral muscle tell up from down",
        "geometry.elastic": "architectural distortion is a finding",
        "cutout": "a blanked part can be the finding",
        "solarize": "half-inverted radiographs do not exist",
    },
)
