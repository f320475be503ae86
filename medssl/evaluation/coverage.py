"""How often 95 % intervals held the truth in simulated studies; docs/statistics.md says how they were made."""

BY_PATIENTS = {40: 93, 100: 94, 300: 94}
"""Test patients -> of 100."""

BY_DRAWS = {2: 88, 3: 93, 5: 92, 10: 94}
"""Label draws -> of 100, in the worst setting tried."""
