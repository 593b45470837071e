"""The room that runs models: with `training/`, the only one that imports torch and diffusers."""
