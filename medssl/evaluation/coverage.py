"""How often 95 % intervals held the truth in simulated studies; docs/statistics.md says how they were made."""

BY_PATIENTS = {40: 95, 100: 95, 300: 95}
"""Test patients -> of 100."""

BY_DRAWS = {2: 90, 3: 92, 5: 94, 10: 95}
"""Label draws -> of 100, in the worst setting tried."""
