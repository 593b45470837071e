"""What looks like a mistake in a prompt, before anything is rendered: each finding with a suggestion.

A finding is a warning, never a refusal: a prompt may mean what it says. Codes:

| code | what was found |
| --- | --- |
| `too_long` | more tokens than the text encoder reads: the rest has no effect |
| `unknown_words` | words that the variant's vocabulary lacks: they are as good as left out |
| `untaught` | of a small model: none of the words that it was taught |
| `contradiction` | the prompt says another size, length, frame rate or camera move than the request |
| `negation` | "no …", "without …" in the prompt: encoders read the word that follows, and draw it |
| `negative_as_prompt` | a prompt that is a list of faults, as negative prompts are |
| `double_negation` | "no …" in the negative prompt |
| `no_effect` | a negative prompt where nothing reads it: the variant renders without guidance |

`diagnose` is pure but for the tokenizer, which `prompts.encoders` reads once.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prompts.encoders import TextEncoder, text_encoder_of
from schemas.catalog import Variant
from schemas.motion import CameraKey
from schemas.task import Group

CODES = (
    "too_long", "unknown_words", "untaught", "contradiction", "negation", "negative_as_prompt", "double_negation",
    "no_effect",
)  # fmt: skip
MEANING = {
    "too_long": "longer than its text encoder reads",
    "unknown_words": "with words that it does not know",
    "untaught": "with none of the words that it was taught",
    "contradiction": "at odds with what the request says beside it",
    "negation": "saying what is not to be seen",
    "negative_as_prompt": "looking like a negative prompt",
    "double_negation": "with 'no' in the negative prompt",
    "no_effect": "with a negative prompt that nothing reads",
}
_SHOWN_WORDS, _SHOWN_CHARS = 6, 60
_LENGTH_OFF = 0.25  # of the seconds that the prompt says: rounding to whole frames is no contradiction

_WORD = re.compile(r"\w+")
# Without one of its words a pattern has nothing to find: most prompts have none, and there are many of them.
_ORIENTED = frozenset(["portrait", "vertical", "landscape", "horizontal", "widescreen", "square"])
_TIMED = frozenset(["s", "sec", "secs", "second", "seconds"])
_STEERED = frozenset(
    [
        "pan",
        "pans",
        "panning",
        "tilt",
        "tilts",
        "tilting",
        "zoom",
        "zooms",
        "zooming",
        "static",
        "locked",
        "fixed",
        "still",
    ]
)
_NEGATING = frozenset(["no", "not", "without", "don", "do", "never", "avoid", "avoiding", "exclude", "excluding"])
_NUMBER = r"(\d+(?:\.\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|sixty)"
_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "sixty": 60,
}  # fmt: skip
_CLIP = r"(?:video|clip|shot|footage|film|movie|animation|scene|format|frame|aspect ratio|orientation)"
# "a 10-second clip", "5 s video", "ten seconds long"
_SECONDS = re.compile(
    rf"\b{_NUMBER}[\s-]*(?:s|secs?|seconds?)\b(?=[\s-]*(?:long\b|(?:\w+\s)?{_CLIP}\b))", re.IGNORECASE
)
_FPS = re.compile(r"\b(\d+(?:\.\d+)?)\s*(?:fps|frames (?:per|a) second)\b", re.IGNORECASE)
_LINES_PX = {"8k": 4320, "4k": 2160, "uhd": 2160, "2160p": 2160, "1440p": 1440, "1080p": 1080, "720p": 720, "480p": 480}
# Those that films and screens have: 10:30 is a time of day.
_PROPORTION = re.compile(r"(?<![:\d])(16|9|4|3|21|1|2|5):(9|16|3|4|21|1|2|5)(?![:\d])")
_PORTRAIT = re.compile(rf"\b(?:portrait|vertical)[\s-]+{_CLIP}\b|\bin portrait orientation\b", re.IGNORECASE)
_LANDSCAPE = re.compile(
    rf"\b(?:landscape|horizontal|widescreen)[\s-]+{_CLIP}\b|\bin landscape orientation\b", re.IGNORECASE
)
_SQUARE = re.compile(rf"\bsquare[\s-]+{_CLIP}\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:no|without(?: any)?|not? any|don['’]?t (?:show|include|add|use|draw)|do not (?:show|include|add|use|draw)"
    r"|avoid(?:ing)?|exclude|excluding|never show)\s+((?:[\w'’-]+\s?){1,4})",
    re.IGNORECASE,
)
# What "no" begins that is no request to leave something out.
_IDIOMS = re.compile(r"\bno (?:one|matter|longer|doubt|more than|less than)\b|\bwithout (?:end|stopping|doubt)\b", re.I)
_CUT_AT = re.compile(
    r"\b(?:and|or|but|in|on|at|with|over|under|while|as|is|are|that|which|of|moving|to)\b", re.IGNORECASE
)
_FAULTS = frozenset(
    [
        "blurry",
        "blur",
        "blurred",
        "low quality",
        "worst quality",
        "bad quality",
        "low resolution",
        "low res",
        "lowres",
        "jpeg artifacts",
        "compression artifacts",
        "artifacts",
        "deformed",
        "disfigured",
        "distorted",
        "distortion",
        "mutated",
        "mutation",
        "extra limbs",
        "extra fingers",
        "missing fingers",
        "fused fingers",
        "bad anatomy",
        "bad hands",
        "bad proportions",
        "poorly drawn",
        "poorly drawn hands",
        "poorly drawn face",
        "ugly",
        "grainy",
        "noisy",
        "overexposed",
        "underexposed",
        "oversaturated",
        "watermark",
        "text",
        "subtitles",
        "signature",
        "logo",
        "cropped",
        "out of frame",
        "duplicate",
        "flicker",
        "flickering",
        "static",
        "inconsistent motion",
        "jittery",
        "worst",
        "nsfw",
        "malformed limbs",
        "cloned face",
        "gross proportions",
    ]
)
_LEAST_FAULTS, _SHARE_OF_FAULTS = 3, 0.6
_MOVES = {
    "pan left": re.compile(r"\bpan(?:s|ning)?\s+(?:to the\s+)?left\b", re.IGNORECASE),
    "pan right": re.compile(r"\bpan(?:s|ning)?\s+(?:to the\s+)?right\b", re.IGNORECASE),
    "tilt up": re.compile(r"\btilt(?:s|ing)?\s+up\b", re.IGNORECASE),
    "tilt down": re.compile(r"\btilt(?:s|ing)?\s+down\b", re.IGNORECASE),
    "zoom in": re.compile(r"\bzoom(?:s|ing)?\s+in\b", re.IGNORECASE),
    "zoom out": re.compile(r"\bzoom(?:s|ing)?\s+out\b", re.IGNORECASE),
    "static": re.compile(r"\b(?:static|locked[\s-]off|fixed|still)\s+(?:camera|shot)\b", re.IGNORECASE),
}
CAMERA_MOVES = tuple(_MOVES)
_OPPOSITES = {
    "pan left": "pan right", "pan right": "pan left", "tilt up": "tilt down", "tilt down": "tilt up",
    "zoom in": "zoom out", "zoom out": "zoom in",
}  # fmt: skip


class Finding(NamedTuple):
    """One thing that looks like a mistake. `field` is `prompt`, `negative_prompt`, or of several `prompts.1.text`."""

    code: str
    field: str
    message: str
    suggestion: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}; {self.suggestion}"


@dataclass(frozen=True)
class Asked:
    """What the request says beside its prompts: size in pixels, seconds, frames a second, whether the negative prompt
    is read, and the camera's moves (of `CAMERA_MOVES`)."""

    width: int
    height: int
    fps: float
    duration_s: float
    guided: bool = True
    moves: frozenset[str] = frozenset()


def asked_of(group: Group, variant: Variant) -> Asked:
    """What a resolved request asks for."""
    return Asked(
        group.width,
        group.height,
        group.fps,
        group.frames / group.fps,
        group.guidance > variant.guidance_off_at,
        frozenset(_moves(group.camera)),
    )


def _moves(camera: Sequence[CameraKey]) -> Iterator[str]:
    """What a camera (absolute keys) does first, by axis."""
    for field, rest, less, more in (
        ("pan", 0.0, "pan left", "pan right"),
        ("tilt", 0.0, "tilt down", "tilt up"),
        ("zoom", 1.0, "zoom out", "zoom in"),
    ):
        values = (getattr(key, field) for key in camera)
        moved = next((value - rest for value in values if value is not None and value != rest), 0.0)
        if moved:
            yield more if moved > 0 else less


def diagnose(prompt: str, negative_prompt: str, asked: Asked, variant: Variant) -> tuple[Finding, ...]:
    """Everything that looks like a mistake, in the order of `CODES`."""
    encoder = text_encoder_of(variant)
    found: list[Finding] = []
    words = _WORD.findall(prompt.lower())
    for field, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if text.strip():
            found += _length(field, text, encoder)
    if prompt.strip():
        found += _vocabulary(prompt, words, variant, encoder)
        found += _contradictions(prompt, frozenset(words), asked)
        if not _NEGATING.isdisjoint(words):
            found += _negations(prompt)
        found += _faults(prompt)
    if negative_prompt.strip():
        found += _negative(negative_prompt, asked)
    return tuple(sorted(found, key=lambda one: CODES.index(one.code)))


def diagnose_all(prompts: Sequence[str], negative_prompt: str, asked: Asked, variant: Variant) -> tuple[Finding, ...]:
    """The same of a clip with several prompts, and of one with one."""
    if len(prompts) == 1:
        return diagnose(prompts[0], negative_prompt, asked, variant)
    found = [
        one._replace(field=f"prompts.{number}.text")
        for number, prompt in enumerate(prompts)
        for one in diagnose(prompt, "", asked, variant)
    ]
    return (*found, *diagnose("", negative_prompt, asked, variant))


def _length(field: str, text: str, encoder: TextEncoder) -> Iterator[Finding]:
    most = encoder.most_tokens
    if most is None or len(text) < most:  # no tokenizer makes more tokens than there are letters
        return
    count = encoder.count(text)
    if count.tokens <= most:
        return
    about = "" if count.exact else "about "
    lost = f", and nothing of {_short(text[count.read :])!r}" if count.read else ""
    yield Finding(
        "too_long",
        field,
        f"has {about}{count.tokens} tokens, and the text encoder reads {most}{lost}",
        "say what matters first, and cut the rest",
    )


def _vocabulary(prompt: str, words: Sequence[str], variant: Variant, encoder: TextEncoder) -> Iterator[Finding]:
    if variant.words and frozenset(variant.words).isdisjoint(words):
        some = ", ".join(variant.words[:_SHOWN_WORDS])
        yield Finding(
            "untaught", "prompt", f"has none of the words that {variant.name!r} was taught", f"use some of: {some} …"
        )
    unknown = encoder.unknown(prompt)
    if unknown:
        shown = ", ".join(repr(word) for word in unknown[:_SHOWN_WORDS])
        more = f" and {len(unknown) - _SHOWN_WORDS} more" if len(unknown) > _SHOWN_WORDS else ""
        near = _nearest(unknown, variant.words)
        meant = f"did you mean {near}?" if near else "use other words, or a variant with a larger vocabulary"
        yield Finding("unknown_words", "prompt", f"{variant.name!r} does not know {shown}{more}", meant)


def _nearest(unknown: Sequence[str], known: Sequence[str]) -> str:
    pairs = ((word, difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.75)) for word in unknown)
    return ", ".join(f"{close[0]!r}" for _, close in pairs if close)


def _contradictions(prompt: str, words: frozenset[str], asked: Asked) -> Iterator[Finding]:
    def against(said: str, given: str, field: str) -> Finding:
        return Finding(
            "contradiction",
            "prompt",
            f"says {said!r}, and the clip has {given}",
            f"set {field}, or leave the words out",
        )

    wide = asked.width / asked.height
    size = f"{asked.width} x {asked.height} pixels"
    if not _ORIENTED.isdisjoint(words):
        for pattern, fits in ((_PORTRAIT, wide < 1), (_LANDSCAPE, wide > 1), (_SQUARE, 0.95 < wide < 1.05)):
            if (said := pattern.search(prompt)) and not fits:
                yield against(said.group(), size, "ratio")
    if ":" in prompt and (said := _PROPORTION.search(prompt)):
        proportion = int(said.group(1)) / int(said.group(2))
        if abs(proportion / wide - 1) > 0.1:
            yield against(said.group(), size, "ratio")
    lines = next((word for word in words if word in _LINES_PX), None)
    if lines and min(asked.width, asked.height) < _LINES_PX[lines]:
        yield against(lines, size, "ratio")
    timed = not _TIMED.isdisjoint(words) or any(word[0].isdigit() and word[-1] == "s" for word in words)
    if timed and (said := _SECONDS.search(prompt)):
        seconds = _number(said.group(1))
        if abs(asked.duration_s - seconds) > max(_LENGTH_OFF * seconds, 2 / asked.fps):
            yield against(said.group(), f"{asked.duration_s:.3g} s", "duration_s")
    rated = "frames" in words or any(word.endswith("fps") for word in words)
    if rated and (said := _FPS.search(prompt)) and abs(float(said.group(1)) / asked.fps - 1) > 0.05:
        yield against(said.group(), f"{asked.fps:g} frames a second", "fps")
    if _STEERED.isdisjoint(words):
        return
    for move, pattern in _MOVES.items():
        said = pattern.search(prompt)
        opposite = asked.moves if move == "static" else asked.moves & {_OPPOSITES[move]}
        if said and opposite:
            yield against(said.group(), f"a camera that does {', '.join(sorted(opposite))}", "camera")


def _faults(prompt: str) -> Iterator[Finding]:
    if prompt.count(",") + prompt.count(";") + prompt.count("\n") < _LEAST_FAULTS - 1:
        return
    parts = [part.strip().lower() for part in re.split(r"[,;\n]", prompt) if part.strip()]
    faults = [part for part in parts if part in _FAULTS]
    if len(faults) >= _LEAST_FAULTS and len(faults) >= _SHARE_OF_FAULTS * len(parts):
        yield Finding(
            "negative_as_prompt",
            "prompt",
            f"is a list of faults ({', '.join(faults[:3])} …), which the clip would show",
            "put it into negative_prompt, and say here what is to be seen",
        )


def _negations(prompt: str) -> Iterator[Finding]:
    left_out = [what for found in _NEGATION.finditer(_IDIOMS.sub("", prompt)) if (what := _thing(found.group(1)))]
    if left_out:
        words = ", ".join(dict.fromkeys(left_out))
        yield Finding(
            "negation",
            "prompt",
            f"says what is not to be seen ({words}): encoders read the words, not the 'no'",
            f"leave it out, and put {words!r} into negative_prompt",
        )


def _negative(negative_prompt: str, asked: Asked) -> Iterator[Finding]:
    found = [what for one in _NEGATION.finditer(negative_prompt) if (what := _thing(one.group(1)))]
    if found:
        words = ", ".join(dict.fromkeys(found))
        yield Finding(
            "double_negation",
            "negative_prompt",
            f"says 'no' of {words}, and what stands here is already kept away",
            f"write {words!r} alone",
        )
    if not asked.guided:
        yield Finding(
            "no_effect",
            "negative_prompt",
            "is not read: the clip is rendered without classifier-free guidance",
            "leave it out, or raise guidance_scale where the variant allows it",
        )


def _thing(text: str) -> str:
    """What a negation is about: up to the next word that begins something else."""
    return _CUT_AT.split(text, maxsplit=1)[0].strip(" '’-")


def _number(text: str) -> float:
    return float(_NUMBERS.get(text.lower()) or text)


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
