"""Which classes make sound with their pictures, and what files can hold it."""

from schemas.clip import ClipFormat

# diffusers 0.42: their output has `audio` beside `frames`, of the clip's length.
SOUNDING = frozenset({"LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline", "LTX2InContextPipeline"})
FORMATS = (ClipFormat.MP4, ClipFormat.WEBM)
