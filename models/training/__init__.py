"""How the embedded model is made: the drawn domain, the VAE, the text encoder, the denoiser."""
