"""Fine-tune a variant's denoiser on captioned clips: a LoRA by default, all weights on request."""
