"""The only room that imports torch and diffusers."""
