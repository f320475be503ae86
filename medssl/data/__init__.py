"""From raw files to batches: cards, formats, manifest, splits, label budgets, pixel store. Knows nothing of methods."""
