"""Catalogs for tests: tiny variants with the rules of real ones."""

from schemas.catalog import Catalog, parse_catalog

TWO_VARIANTS = """
[variants.small]
pipeline = "WanPipeline"
weights = "embedded:tiny-random"
pipelines = { image_to_video = "WanImageToVideoPipeline" }
modes = ["text_to_video", "image_to_video"]
dtype = "float32"
steps = 2
guidance = 3.0
fps = 8
max_batch = 4
batch_curve = [{ tokens = 1, batch = 4, speedup = 3.9 }]
cost = { measured = true, fixed_s = 0.05, step_s_per_token = 0.001, decode_s_per_megapixel = 0.1 }
aliases = ["petit"]
price_usd_per_gpu_hour = 2.0
shape.divisor = 16
shape.frame_step = 4
shape.frame_offset = 1
shape.min_frames = 5
shape.max_frames = 33
shape.max_pixels = 16384
shape.native = [[64, 64, 17], [96, 64, 17]]
latent = { channels = 16, spatial = 8, temporal = 4 }
needs = { gpus = 0, cpus = 1 }

[variants.swift]
pipeline = "WanPipeline"
weights = "embedded:tiny-random"
modes = ["text_to_video"]
dtype = "float32"
steps = 1
guidance = 1.0
fps = 8
max_batch = 3
price_usd_per_gpu_hour = 1.0
shape.divisor = 32
shape.frame_step = 4
shape.frame_offset = 1
shape.min_frames = 5
shape.max_frames = 17
shape.max_pixels = 4096
shape.native = [[64, 64, 17]]
latent = { channels = 16, spatial = 8, temporal = 4 }
needs = { gpus = 0, cpus = 1 }
"""


def two_variants() -> Catalog:
    """`small` takes images and many shapes; `swift` is cheaper and takes few."""
    return parse_catalog(TWO_VARIANTS, "two-variants.toml")


_SHAPES = """
dtype = "float32"
steps = 2
guidance = 1.0
fps = 8
price_usd_per_gpu_hour = 3.0
shape.divisor = 32
shape.frame_step = 4
shape.frame_offset = 1
shape.min_frames = 5
shape.max_frames = 33
shape.max_pixels = 16384
shape.native = [[32, 32, 17], [64, 64, 17]]
latent = { channels = 16, spatial = 8, temporal = 4 }
needs = { gpus = 0, cpus = 1 }
"""


def directed(vace: str = "embedded:none", frames: str = "embedded:none", ends: str = "embedded:none") -> Catalog:
    """Beside `small` and `swift`, a variant of each class that takes more than one input, over weights in folders."""
    more = f"""
[variants.vace]
pipeline = "WanVACEPipeline"
weights = "{vace}"
modes = ["text_to_video", "image_to_video", "video_to_video"]
conditions = [
  "first_frame", "last_frame", "keyframe", "source", "structure:edges", "structure:depth", "mask", "reference",
  "camera", "paths",
]
{_SHAPES}
[variants.frames]
pipeline = "LTXConditionPipeline"
weights = "{frames}"
modes = ["text_to_video", "image_to_video"]
{_SHAPES.replace("frame_step = 4", "frame_step = 8").replace("min_frames = 5", "min_frames = 9")}
[variants.ends]
pipeline = "WanImageToVideoPipeline"
weights = "{ends}"
modes = ["image_to_video"]
conditions = ["first_frame", "last_frame"]
{_SHAPES}
"""
    return parse_catalog(TWO_VARIANTS + more, "directed.toml")
