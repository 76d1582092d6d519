"""Latents -> images. One file a family; ``module.wrap`` for everything else that is an ``nn.Module``."""
