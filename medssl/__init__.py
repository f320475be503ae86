"""medssl: which initialisation should we train from, ImageNet, in-domain, or both, and how sure are we?

encoder = medssl.load_encoder("runs/chest_xray/pretrain/in_domain/encoder")
features = encoder.features(["a.dcm", "b.png"])        # (2, D) NumPy array
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssl.pretrained import PretrainedEncoder

__all__ = ["__version__", "load_encoder"]
__version__ = metadata.version("medssl")


def load_encoder(place: str, *, device: str = "cpu") -> PretrainedEncoder:
    """An encoder that medssl trained, with its preprocessing; see `medssl.pretrained.load_encoder`."""
    from medssl.pretrained import load_encoder as load

    return load(place, device=device)
