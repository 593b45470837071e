"""Which pipeline classes render on several GPUs at once, one clip split among them."""

from collections.abc import Iterable

SPLIT = ("WanPipeline", "WanImageToVideoPipeline", "WanVideoToVideoPipeline")
"""diffusers says how the denoiser's tokens are split, and the clips were found to be those of one process. Its plan for
LTX-Video fails at the attention's mask (0.42), and most classes have none."""


def why_not_split(pipelines: Iterable[str], gpus: float, cache: str | None) -> str | None:
    """Why one actor of these classes cannot hold so many GPUs, with what it can; None where it can."""
    if gpus <= 1:
        return None
    if gpus != int(gpus):
        return f"needs.gpus: {gpus:g} is no whole number of GPUs; available: {int(gpus)}, {int(gpus) + 1}"
    for pipeline in pipelines:
        if pipeline not in SPLIT:
            return (
                f"needs.gpus: {gpus:g}: {pipeline} does not split a clip among GPUs; "
                f"available: 0 to 1 (more GPUs are more actors), or more with {', '.join(SPLIT)}"
            )
    if cache is not None:
        return f"needs.gpus: {gpus:g}: with speed.cache = {cache!r} each GPU skips its own steps; available: 0 to 1"
    return None
