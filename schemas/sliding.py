"""Classes that make long clips by themselves: one call, in windows that slide along the clip.

| class | a window | in common with the one before | several prompts |
| --- | --- | --- | --- |
| `LTXI2VLongMultiPromptPipeline` | `temporal_tile_size` frames | `temporal_overlap` | one a window |
| `SkyReelsV2DiffusionForcing…Pipeline` | `base_num_frames` | `overlap_history`, where the entry says it | no |
| `HeliosPipeline` | `num_latent_frames_per_chunk` latent frames | none: it sees those before in few tokens | no |
| `Cosmos2_5_TransferPipeline` | `num_frames_per_chunk` frames | `num_ar_conditional_frames` | no |
| `HunyuanVideoFramepackPipeline` | `latent_window_size` latent frames | none, likewise; from the end on | no |

Framepack adds `latent_window_size` latent frames a section to the first frame: of a clip of another length the end is
left out, with what it came to. The numbers are the entry's `call_options`, or the class's own defaults.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from schemas.errors import Issue

FRAMEPACK = "HunyuanVideoFramepackPipeline"
COSMOS_TRANSFER = "Cosmos2_5_TransferPipeline"
# Its progress bar counts the steps of all windows together.
ONE_BAR = frozenset({COSMOS_TRANSFER})
SEVERAL_PROMPTS = frozenset({"LTXI2VLongMultiPromptPipeline"})


def slide_issue(pipeline: str, options: Mapping[str, Any], temporal: int) -> str | None:
    """What is wrong with a class's windows, whatever the clip."""
    if pipeline != "LTXI2VLongMultiPromptPipeline":
        return None
    size, overlap = options.get("temporal_tile_size", 80), options.get("temporal_overlap", 24)
    # diffusers 0.42 fades over one latent frame less, and does not fade over one.
    if 3 * temporal <= int(overlap) and int(overlap) // temporal < int(size) // temporal:
        return None
    return f"call_options.temporal_overlap: at least {3 * temporal} frames, and below the {size} of a window"


class Slide(NamedTuple):
    """Windows in latent frames. `temporal`: frames a latent one; `begins_at`: the latent frame of each window."""

    latent_frames: int
    overlap: int
    begins_at: tuple[int, ...]
    temporal: int

    @property
    def frames(self) -> int:
        """Of one window, by itself."""
        return (self.latent_frames - 1) * self.temporal + 1

    @property
    def first_frames(self) -> tuple[int, ...]:
        """The clip's frame with which each window begins."""
        return tuple(0 if at == 0 else (at - 1) * self.temporal + 1 for at in self.begins_at)


def slide_of(pipeline: str, options: Mapping[str, Any], frames: int, temporal: int) -> Slide | None:
    """The windows of a clip of so many frames; None for a class that has none, or a clip that is one."""
    latents = (frames - 1) // temporal + 1
    if pipeline == "LTXI2VLongMultiPromptPipeline":
        size = max(1, int(options.get("temporal_tile_size", 80)) // temporal)
        overlap = max(0, int(options.get("temporal_overlap", 24)) // temporal)
    elif pipeline.startswith("SkyReelsV2DiffusionForcing"):
        if options.get("overlap_history") is None:
            return None
        size = (int(options.get("base_num_frames", 97)) - 1) // temporal + 1
        overlap = (int(options["overlap_history"]) - 1) // temporal + 1
    elif pipeline == "HeliosPipeline":
        size, overlap = int(options.get("num_latent_frames_per_chunk", 9)), 0
    elif pipeline == COSMOS_TRANSFER:
        of_window, seen = chunk_of(options), int(options.get("num_ar_conditional_frames", 1))
        begins_at = tuple(start // temporal for start in range(0, frames - seen, max(1, of_window - seen)))
        size = (of_window - 1) // temporal + 1
        return Slide(size, (seen - 1) // temporal + 1, begins_at, temporal) if len(begins_at) > 1 else None
    elif pipeline == FRAMEPACK:
        size = _section(options)
        sections = _sections(options, frames, temporal)
        return Slide(size, 0, tuple(range(0, sections * size, size)), temporal) if sections > 1 else None
    else:
        return None
    if latents <= size:
        return None
    begins = [0]
    while begins[-1] + size < latents:
        begins.append(begins[-1] + max(1, size - overlap))
    return Slide(size, overlap, tuple(begins), temporal)


def chunk_of(options: Mapping[str, Any]) -> int:
    """Frames of one window of Cosmos Transfer."""
    return int(options.get("num_frames_per_chunk", 93))


def whole_lengths(pipeline: str, options: Mapping[str, Any], frames: int, temporal: int) -> tuple[int, ...]:
    """Of a class that makes whole sections of a clip, and of which the rest is left out: the length in frames, where it
    is whole, else the nearest below and above that are. () for the other classes."""
    if pipeline != FRAMEPACK:
        return ()
    section = _section(options) * temporal
    above = _sections(options, frames, temporal) * section + 1
    return (above,) if above == frames else tuple(one for one in (above - section, above) if one > 1)


def told_frames(pipeline: str, options: Mapping[str, Any], frames: int, temporal: int) -> int:
    """The number of frames that the call is told for a clip of so many. Framepack counts sections by the frames that
    one has by itself, fewer than it adds to a clip: told the clip's own number it would make a section too many."""
    if pipeline != FRAMEPACK:
        return frames
    return _sections(options, frames, temporal) * ((_section(options) - 1) * temporal + 1)


def _section(options: Mapping[str, Any]) -> int:
    """Latent frames of one section of Framepack."""
    return int(options.get("latent_window_size", 9))


def _sections(options: Mapping[str, Any], frames: int, temporal: int) -> int:
    """How many sections hold a clip: one frame, and each section's latent frames."""
    return max(1, -(-(frames - 1) // (_section(options) * temporal)))


def prompt_of_each_window(slide: Slide | None, turns: Sequence[int]) -> tuple[int, ...]:
    """The number of the prompt that each window has: the one that holds at its first frame, so that a prompt changes
    nothing that is before it."""
    firsts = slide.first_frames if slide is not None else (0,)
    return tuple(sum(turn <= first for turn in turns) for first in firsts)


def window_issues(slide: Slide | None, turns: Sequence[int], fps: float, pipeline: str) -> tuple[Issue, ...]:
    """Prompts that no window would have."""
    has = set(prompt_of_each_window(slide, turns))
    later = tuple(f"{first / fps:.3f}" for first in (slide.first_frames[1:] if slide is not None else ()))
    if not later:
        text = f"{pipeline} has one prompt a window, and this clip is one window: it has one prompt"
        return (Issue("prompts", text, "not_taken", ("1 prompt",)),) if turns else ()
    return tuple(
        Issue(
            f"prompts.{number}.from_s",
            f"no window of {pipeline} begins between it and the next: they begin at these seconds",
            "range",
            later,
        )
        for number in range(1, len(turns) + 1)
        if number not in has
    )
