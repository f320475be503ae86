"""Nothing is drawn: the whole image, as it is. For composing views from nothing in the study file."""

from medssl.augment.policies.base import Policy

PLAIN = Policy(name="plain", channels="any", dims=2, settings={})
PLAIN_VOLUME = Policy(name="plain_volume", channels="any", dims=3, settings={})
