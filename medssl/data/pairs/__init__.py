"""Related images ("positive pairs"): which other image of a patient may stand for an image (SimTriplet, MedAug, MICLe)."""

from medssl.data.pairs.related import RelatedImages, related_images

__all__ = ["RelatedImages", "related_images"]
