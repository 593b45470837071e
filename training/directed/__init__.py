"""The recipe of the embedded model that obeys every condition: a tiny `WanVACEPipeline`."""
