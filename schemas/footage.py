"""A variant that renders nothing: the clip is the video that came in, for what only is to be done to it.

An endpoint serves it where `pools.variants` names `footage`; a catalog need not have it. It takes every size.
"""

from schemas.catalog import CostProfile, Latent, Needs, Variant
from schemas.request import Mode
from schemas.shape import ShapeRule

FOOTAGE = "footage"
PIPELINE = "Footage"
# What Runway calls the models that upscale and interpolate.
ALIASES = ("magnific_video_upscaler_creative", "enhance_frame_rate")


def footage_variant() -> Variant:
    """The entry."""
    return Variant(
        name=FOOTAGE,
        title="The video that came in, for what is to be done to it",
        pipeline=PIPELINE,
        weights="embedded:footage",
        modes=(Mode.VIDEO_TO_VIDEO,),
        dtype="float32",
        steps=1,
        fps=24,
        shape=ShapeRule(divisor=1, min_side=2, max_frames=20_000, max_pixels=8192 * 4320, native=((1280, 720, 120),)),
        latent=Latent(channels=1, spatial=64, temporal=8, patch=(1, 1, 1)),
        needs=Needs(gpus=0, cpus=1),
        cost=CostProfile(
            measured=True,
            parameters_b=1e-6,
            fixed_s=0.05,
            step_s=1e-6,
            step_s_per_token=1e-9,
            step_s_per_token_squared=1e-15,
            decode_s_per_megapixel=0.005,
            load_warm_s=0.1,
            load_cold_s=0.1,
        ),
        aliases=ALIASES,
        auto=False,
        license="none: it has no weights",
    )
