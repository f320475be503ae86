"""Closed lists for fields of DICOM: what is not in them is not passed on, since free text may hold a name."""

from __future__ import annotations

import functools
import re

# Modality (0008,0060), PS3.3 C.7.3.1.1.1 with its retired terms.
_IMAGES = """
    AR BDUS BI BMD CD CF CP CR CS CT DD DF DG DM DMS DS DX EC ECG EPS ES FA FS GM HC HD IO IVOCT IVUS KER LE LEN LP LS
    MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT POS PT PX RF RG RTIMAGE SC SM SRF ST TG US VA VF XA
    XC
"""
_OTHERS = """
    ASMT AU CTPROTOCOL DOC FID IOL KO M3D PLAN PR REG RESP RTDOSE RTPLAN RTRECORD RTSEGANN RTSTRUCT RWV SEG SMR SR STAIN
    TEXTUREMAP XAPROTOCOL
"""
# View Position (0018,5101): PS3.3 C.8.1.2 and C.8.11.5, mammography's view codes, and words that archives use besides.
_VIEWS = """
    AP PA LL RL RLD LLD RLO LLO LAO RAO LPO RPO LAT LATERAL OBL OBLIQUE CC ML MLO LM LMO FB SIO ISO XCC XCCL XCCM AT CV
    RM
"""

IMAGE_MODALITIES = frozenset(_IMAGES.split())
"""Modalities whose objects hold images for people to look at."""

OTHER_MODALITIES = frozenset(_OTHERS.split())
"""Modalities whose objects are no images though some have pixels: reports, plans, dose grids, label maps, registrations."""

VIEWS = frozenset(_VIEWS.split())
"""Codes of View Position."""

VENDORS: tuple[tuple[str, str], ...] = (
    ("phantom_a", r"phantom[ _]a\b"),
    ("phantom_b", r"phantom[ _]b\b"),
    ("siemens", r"siemens"),
    ("philips", r"philips"),
    ("canon", r"canon|toshiba"),
    ("fujifilm", r"fuji"),
    ("agfa", r"agfa"),
    ("carestream", r"carestream|kodak"),
    ("konica_minolta", r"konica|minolta"),
    ("hologic", r"hologic|lorad"),
    ("samsung", r"samsung|medison"),
    ("shimadzu", r"shimadzu"),
    ("hitachi", r"hitachi"),
    ("united_imaging", r"united.?imaging|\buih\b"),
    ("ge", r"\bg\.?e\.?(?![a-z])|\bgems\b|general electric"),
)
"""Vendor and the pattern of its names in Manufacturer (0008,0070), in small letters. The first that is found counts."""


@functools.lru_cache(maxsize=256)
def vendor_of(manufacturer: str | None) -> str | None:
    """The vendor's name in `VENDORS`, "other" for any other, None where the file names none."""
    if manufacturer is None:
        return None
    words = manufacturer.lower()
    return next((vendor for vendor, pattern in VENDORS if re.search(pattern, words)), "other")
