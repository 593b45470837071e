"""Hotshot-XL: its UNet on diffusers' blocks, the conversion of its checkpoints, and its ControlNet pipeline."""
