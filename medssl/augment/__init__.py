"""Views: parameters are drawn on the CPU, applied in a few batched operations on the device; one policy a modality.

Everything here takes a `PixelBatch` or unit-range images (N, 1, H, W) and works on all samples at once.
"""
