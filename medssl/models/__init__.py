"""Networks: backbones, the encoder that owns its input, heads, and every way to initialise them. Knows nothing of methods."""
