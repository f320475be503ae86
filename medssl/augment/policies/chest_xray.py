"""Views of chest radiographs. Each choice has its reason beside it; a radiologist should still be able to read every view."""

from medssl.augment.policies.base import GREY, Policy

CHEST_XRAY = Policy(
    name="chest_xray",
    channels="grey",
    dims=2,
    settings={
        "geometry": {
            # SimSiam's natural images use 0.2 to 1. A chest X-ray is framed, and a finding may fill little of it: below about a
            # third of the area one view can show a lung and the other none of it.
            "crop_scale": [0.3, 1.0],
            # The usual range of random resized crops (Szegedy et al. 2015, 1409.4842, section 6).
            "crop_ratio": [3 / 4, 4 / 3],
            # Patients stand or lie askew by a few degrees; MoCo-CXR turns by up to 10, Azizi et al. by up to 45.
            "rotation": 12.0,
        },
        # What exposure and a reader's window setting do; takes the place of brightness and contrast of natural images (0.4
        # there). Narrowed by more than a tenth, or shifted further, the mediastinum of bright images turns plain white.
        "window": {"center_shift": 0.08, "width_factor": [0.9, 1.4]},
        # Quantum noise of a low dose. It is added at the view's resolution: at 64 px, 0.03 already drowned fine lung markings
        # on contact sheets of paediatric images.
        "noise": {"std": [0.0, 0.015]},
        # Detectors and vendors differ in their display curves.
        "gamma": {"exponent": [0.75, 1.35]},
    },
    leaves_out=GREY
    | {
        "geometry.horizontal_flip": "the heart lies left: a mirrored image is dextrocardia, and its side marker is mirrored too",
        "geometry.vertical_flip": "nobody lies in the detector upside down",
        "geometry.quarter_turns": "archives are stored upright",
        "blur": "it hides what interstitial disease is read from; Azizi et al. (ICCV 2021) and MoCo-CXR (MIDL 2021) leave it out",
        "solarize": "half-inverted radiographs do not exist",
        "cutout": "a blanked lung field can be the finding",
        "ct_noise": "the values are not Hounsfield units",
        "ct_kernel": "the values are not Hounsfield units",
    },
)
