"""How the embedded model is made: the drawn domain, the VAE, the denoiser, its distillation."""
