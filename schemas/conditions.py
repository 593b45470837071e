"""What variants can be told beside the prompt, and an input as one variant takes it.

What a call can carry is a fact of the diffusers class (`carried`), held against the classes' signatures by a test; what
the weights were trained for is the catalog's to say (`conditions`), and without a word the usual for the class.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import Issue
from schemas.extract import FLOOR_EXTRACTORS, Extraction, Extractor, able_extractors
from schemas.inputs import ANY_EXTRACTOR, FRAMES, InputSpec, Kind, Medium, Role
from schemas.motion import Steer
from schemas.parts import Part
from schemas.request import Mode
from schemas.sliding import COSMOS_TRANSFER, FRAMEPACK

ALL = frozenset(Role)
# Classes that can be given neighbouring frames one by one.
HOLDS_A_VIDEO = frozenset({"WanVACEPipeline"})
# Of these a last frame is the last of the call, wherever that is.
ENDS_WITH_ITS_LAST = frozenset({"WanImageToVideoPipeline", FRAMEPACK})
# These take a last frame as a second picture beside a first one.
_LAST_BESIDE_FIRST = frozenset({"WanImageToVideoPipeline", FRAMEPACK, "EasyAnimateInpaintPipeline"})


class Condition(BaseModel):
    """One input as a model call takes it, without its media. `frame` is the clip's, from 0; None where it has none.
    `start_s` and `end_s` are of a video: the part that is used. `extract`: how its structure is found in it."""

    model_config = ConfigDict(frozen=True)

    role: Role
    medium: Medium
    frame: int | None = None
    strength: float | None = None
    kind: Kind | None = None
    start_s: float | None = None
    end_s: float | None = None
    # Left out where there is none: what was told before there were any is the same task.
    extract: Extraction | None = Field(default=None, exclude_if=lambda value: value is None)


@dataclass(frozen=True)
class Carried:
    """What one class can be told, in one mode.

    `usual`: what its weights can be expected to obey when the catalog does not say. `strengths`: roles that take one;
    the inputs of a clip whose roles are together in one of `one_strength` have the same. `adds`: roles of which each
    input makes the model see one more latent frame, `again`: as many as the clip has. `steers`: what of the motion it
    can be told, `usual_steers` without the catalog's word. `by`, `steers_by`: roles and motion that are carried by a
    part which the entry names, and the part. `needs`: roles without which it cannot be called.
    """

    roles: frozenset[Role]
    usual: frozenset[Role]
    strengths: frozenset[Role] = frozenset()
    one_strength: tuple[frozenset[Role], ...] = ()
    adds: frozenset[Role] = frozenset()
    again: frozenset[Role] = frozenset()
    steers: frozenset[Steer] = frozenset()
    usual_steers: frozenset[Steer] = frozenset()
    by: Mapping[Role, Part] = field(default_factory=dict)
    steers_by: Mapping[Steer, Part] = field(default_factory=dict)
    needs: frozenset[Role] = frozenset()

    @property
    def parts(self) -> frozenset[Part]:
        """Those by which calls can be told more."""
        return frozenset((*self.by.values(), *self.steers_by.values()))

    def with_parts(self, parts: frozenset[Part]) -> frozenset[Role]:
        """The roles that calls can be told when the entry names these parts."""
        return frozenset(role for role in self.roles if role not in self.by or self.by[role] in parts)

    def steers_with(self, parts: frozenset[Part]) -> frozenset[Steer]:
        """What of the motion calls can be told when the entry names these parts."""
        return frozenset(one for one in self.steers if one not in self.steers_by or self.steers_by[one] in parts)


_VACE = Carried(
    roles=ALL,
    usual=ALL - {Role.STYLE},
    # Of a source the word would mean the opposite: how much is made anew. What a mask spares is kept.
    strengths=ALL - {Role.SOURCE, Role.MASK},
    one_strength=(ALL,),
    adds=frozenset({Role.REFERENCE, Role.STYLE}),
    # As a video with a mask of what was uncovered, and as boxes: both are what its weights were trained with.
    steers=frozenset(Steer),
    usual_steers=frozenset(Steer),
)
_LTX_CONDITION = Carried(
    roles=FRAMES,
    usual=FRAMES,
    strengths=FRAMES,
    adds=frozenset({Role.LAST_FRAME, Role.KEYFRAME}),
    # As keyframes, which have no mask: what was uncovered is a guess.
    steers=frozenset({Steer.CAMERA}),
)
# What it sees whole beside the clip a LoRA has taught it: the entry says whether that is edges, a source or a picture.
# Frames it takes as the class above.
_IN_CONTEXT = Carried(
    roles=FRAMES | {Role.STRUCTURE, Role.SOURCE, Role.REFERENCE},
    usual=FRAMES,
    # Of a source the word would mean the opposite, as above.
    strengths=FRAMES | {Role.STRUCTURE, Role.REFERENCE},
    adds=frozenset({Role.LAST_FRAME, Role.KEYFRAME, Role.REFERENCE}),
    again=frozenset({Role.STRUCTURE, Role.SOURCE}),
    steers=frozenset({Steer.CAMERA}),
)
_FIRST_AND_LAST = Carried(roles=frozenset({Role.FIRST_FRAME, Role.LAST_FRAME}), usual=frozenset({Role.FIRST_FRAME}))
# Its weights are told the camera in every call: without a word it rests.
_SANA_WORLD = Carried(
    roles=frozenset({Role.FIRST_FRAME}),
    usual=frozenset({Role.FIRST_FRAME}),
    steers=frozenset({Steer.CAMERA}),
    usual_steers=frozenset({Steer.CAMERA}),
)

_SOURCE = frozenset({Role.SOURCE})
_ONLY_SOURCE = Carried(roles=_SOURCE, usual=_SOURCE)
_STRUCTURE = frozenset({Role.STRUCTURE})
# Its call takes the clip's length from the control video: without one there is no call.
_COG_CONTROL = Carried(roles=_STRUCTURE, usual=_STRUCTURE, needs=_STRUCTURE)

# Its ControlNet's kind; nothing in the class stands for none.
_COSMOS_TRANSFER = Carried(
    roles=_STRUCTURE, usual=_STRUCTURE, strengths=_STRUCTURE, needs=_STRUCTURE, by={Role.STRUCTURE: Part.CONTROLNET}
)
# Its weights are for a control video or for a camera: what they are not for is refused when they are loaded.
_EASY_CONTROL = Carried(
    roles=_STRUCTURE | {Role.FIRST_FRAME}, usual=_STRUCTURE | {Role.FIRST_FRAME}, steers=frozenset({Steer.CAMERA})
)
_EASY_INPAINT = Carried(
    roles=frozenset({Role.FIRST_FRAME, Role.LAST_FRAME, Role.SOURCE, Role.MASK}),
    usual=frozenset({Role.FIRST_FRAME, Role.LAST_FRAME, Role.SOURCE, Role.MASK}),
    strengths=frozenset({Role.SOURCE}),
)


def _animatediff(*controlled: Role, source: bool = False, styled: bool = True, moved: bool = False) -> Carried:
    """With a ControlNet for some roles, each of which has its strength apart from a style's; all `controlled` together
    have one. An IP-Adapter has one scale for all pictures. `moved`: motion LoRAs say where the camera goes."""
    by = dict.fromkeys(controlled, Part.CONTROLNET) | ({Role.STYLE: Part.IP_ADAPTER} if styled else {})
    roles = frozenset(by) | (frozenset({Role.SOURCE}) if source else frozenset())
    camera = frozenset({Steer.CAMERA}) if moved else frozenset()
    return Carried(
        roles,
        roles,
        roles,
        one_strength=(frozenset(controlled), frozenset({Role.STYLE})),
        steers=camera,
        usual_steers=camera,
        by=by,
        steers_by=dict.fromkeys(camera, Part.MOTION_LORAS),
    )


_BY_CLASS = {
    # A source, a structure and frames say themselves where things are in each frame: only this class is free to move.
    "AnimateDiffPipeline": _animatediff(moved=True),
    "AnimateDiffVideoToVideoPipeline": _animatediff(source=True),
    "AnimateDiffControlNetPipeline": _animatediff(Role.STRUCTURE),
    "AnimateDiffVideoToVideoControlNetPipeline": _animatediff(Role.STRUCTURE, source=True),
    "AnimateDiffSparseControlNetPipeline": _animatediff(*FRAMES),
    "HotshotControlNetPipeline": _animatediff(Role.STRUCTURE, styled=False),
    "CogVideoXFunControlPipeline": _COG_CONTROL,
    COSMOS_TRANSFER: _COSMOS_TRANSFER,
    "EasyAnimateControlPipeline": _EASY_CONTROL,
    "EasyAnimateInpaintPipeline": _EASY_INPAINT,
    "SanaWMPipeline": _SANA_WORLD,
    "WanVACEPipeline": _VACE,
    "LTXConditionPipeline": _LTX_CONDITION,
    "LTX2ConditionPipeline": _LTX_CONDITION,
    "LTX2InContextPipeline": _IN_CONTEXT,
    "WanImageToVideoPipeline": _FIRST_AND_LAST,
    FRAMEPACK: _FIRST_AND_LAST,
    # It sees the source beside the clip in every step, and has no share of it that is made anew.
    "LucyEditPipeline": _ONLY_SOURCE,
    "Footage": _ONLY_SOURCE,
}
_FIRST = frozenset({Role.FIRST_FRAME})
_BY_MODE = {
    Mode.TEXT_TO_VIDEO: Carried(frozenset(), frozenset()),
    Mode.IMAGE_TO_VIDEO: Carried(_FIRST, _FIRST),
    Mode.VIDEO_TO_VIDEO: Carried(_SOURCE, _SOURCE, strengths=_SOURCE),
}
# Which roles a call of a mode may hold beside what makes it one of that mode.
_OF_MODE = {
    Mode.TEXT_TO_VIDEO: ALL - FRAMES - {Role.SOURCE, Role.MASK},
    Mode.IMAGE_TO_VIDEO: ALL - {Role.SOURCE, Role.MASK},
    Mode.VIDEO_TO_VIDEO: ALL,
}


def carried(pipeline: str, mode: Mode) -> Carried:
    """What calls of this diffusers class can be told in `mode`."""
    return _BY_CLASS.get(pipeline, _BY_MODE[mode])


def classes_with(part: Part) -> tuple[str, ...]:
    """The classes that are told more by such a part."""
    return tuple(name for name, can in _BY_CLASS.items() if part in can.parts)


def roles_of(
    pipeline: str, mode: Mode, conditions: tuple[str, ...] | None, parts: frozenset[Part] = frozenset()
) -> tuple[Role, ...]:
    """The roles that a variant takes in `mode`, in the order of `Role`: what its class carries with the `parts` that
    its entry names, and its entry says."""
    can = carried(pipeline, mode)
    said = can.usual if conditions is None else {one.partition(":")[0] for one in conditions}
    return tuple(role for role in Role if role in can.with_parts(parts) & _OF_MODE[mode] and role in said)


def steers_of(
    pipeline: str, mode: Mode, conditions: tuple[str, ...] | None, parts: frozenset[Part] = frozenset()
) -> tuple[Steer, ...]:
    """What of the motion a variant follows in `mode`: what its class carries with the `parts` that its entry names, and
    its entry says."""
    can = carried(pipeline, mode)
    said = can.usual_steers if conditions is None else set(conditions)
    return tuple(steer for steer in Steer if steer in can.steers_with(parts) and steer in said)


def kinds_of(conditions: tuple[str, ...] | None) -> tuple[Kind, ...]:
    """The kinds of structure that an entry names; all, where it names none."""
    named = {Kind(kind) for one in conditions or () for _, colon, kind in (one.partition(":"),) if colon}
    return tuple(kind for kind in Kind if not named or kind in named)


def implied_mode(roles: Iterable[Role]) -> Mode:
    """What a call with these inputs is."""
    given = frozenset(roles)
    if Role.SOURCE in given:
        return Mode.VIDEO_TO_VIDEO
    return Mode.IMAGE_TO_VIDEO if given & FRAMES else Mode.TEXT_TO_VIDEO


def added_frames(
    pipeline: str, mode: Mode, conditions: Sequence[Condition], latent_frames: int, options: Mapping[str, Any]
) -> int:
    """Latent frames that the model sees beside the clip's own, which are `latent_frames`. `options`: the entry's
    `call_options`."""
    can = carried(pipeline, mode)
    # A frame at the beginning stands in the clip's own latents.
    single = sum(one.role in can.adds and one.frame != 0 for one in conditions)
    again = sum(one.role in can.again for one in conditions) * latent_frames
    # They may be smaller than the clip, on both sides.
    return single + -(-again // int(options.get("reference_downscale_factor", 1)) ** 2)


def resolved(
    specs: Sequence[InputSpec],
    pipeline: str,
    mode: Mode,
    frames: int,
    fps: float,
    source_strength: float,
    extractors: Mapping[str, Extractor] = FLOOR_EXTRACTORS,
) -> tuple[tuple[Condition, ...], tuple[Issue, ...]]:
    """The conditions of a clip of so many frames, in the order of `specs`, and what is wrong with them on this class.

    `source_strength` is of a source that does not say. The roles are the variant's: whoever calls has seen to that.
    """
    can = carried(pipeline, mode)
    issues: list[Issue] = []
    found: list[Condition] = []
    at_frame: dict[int, InputSpec] = {}
    strengths: dict[frozenset[Role], float] = {}
    for spec in specs:
        frame = _frame(spec, frames, fps)
        if frame is not None:
            if frame >= frames:
                field = "at_s" if spec.at_s is not None else "at_frame"
                last = f"{(frames - 1) / fps:.3f} s" if field == "at_s" else f"frame {frames - 1}"
                issues.append(Issue(spec.at(field), f"is after the end: the clip's last is {last}", "range"))
            elif frame in at_frame:
                other = at_frame[frame].role
                issues.append(Issue(spec.path, f"frame {frame} is given twice: as {other} and as {spec.role}", "twice"))
            at_frame[frame] = spec
        strength = spec.strength
        if strength is not None and spec.role not in can.strengths:
            takes = tuple(role.value for role in Role if role in can.strengths)
            issues.append(
                Issue(spec.at("strength"), f"{pipeline} takes no strength of a {spec.role}", "not_taken", takes)
            )
        elif strength is not None:
            for roles in (roles for roles in can.one_strength if spec.role in roles):
                first = strengths.setdefault(roles, strength)
                if strength != first:
                    of = "inputs" if roles == ALL else f"{spec.role} inputs" if len(roles) == 1 else "frames"
                    text = f"{pipeline} has one strength for all {of} of a clip, and here is a second"
                    issues.append(Issue(spec.at("strength"), text, "twice", (f"{first:g}",)))
        if strength is None and spec.role is Role.SOURCE and Role.SOURCE in can.strengths:
            strength = source_strength
        found.append(
            Condition(
                role=spec.role,
                medium=spec.medium,
                frame=frame,
                strength=strength,
                # A frame is a picture unless it says so: that it is one is no other task.
                kind=None if spec.role in FRAMES and spec.kind is Kind.RAW else spec.kind,
                start_s=spec.start,
                end_s=spec.end,
                extract=_extraction(spec, extractors, issues),
            )
        )
    issues += _conflicts(specs, pipeline)
    return tuple(found), tuple(issues)


def _extraction(spec: InputSpec, extractors: Mapping[str, Extractor], issues: list[Issue]) -> Extraction | None:
    if spec.extract is None:
        return None
    able = able_extractors(extractors, spec.kind)
    by = next(iter(able), None) if spec.extract == ANY_EXTRACTOR else spec.extract
    if by in able:
        return extractors[by].extraction
    text = f"nobody here finds {spec.kind}" if by is None else f"{by!r} finds no {spec.kind}"
    how = "" if able else "; an [extractors.NAME] of the catalog says who does"
    issues.append(Issue(spec.at("extract"), text + how, "unknown_extractor", able))
    return None


def _frame(spec: InputSpec, frames: int, fps: float) -> int | None:
    if spec.role is Role.FIRST_FRAME:
        return 0
    if spec.role is Role.LAST_FRAME:
        return frames - 1
    if spec.at_frame is not None:
        return spec.at_frame
    if spec.at_s is not None:
        return round(spec.at_s * fps)
    return None if spec.at_share is None else round(spec.at_share * (frames - 1))


def _conflicts(specs: Sequence[InputSpec], pipeline: str) -> list[Issue]:
    by_role = {spec.role: spec for spec in specs}
    if pipeline == "WanVACEPipeline" and {Role.SOURCE, Role.STRUCTURE} <= by_role.keys() and Role.MASK not in by_role:
        text = f"{pipeline} has one control video: beside a source, a structure needs a mask that says where it holds"
        return [Issue(by_role[Role.STRUCTURE].at("role"), text, "conflict", (Role.MASK.value,))]
    ends = pipeline in _LAST_BESIDE_FIRST and Role.LAST_FRAME in by_role and Role.SOURCE not in by_role
    if ends and Role.FIRST_FRAME not in by_role:
        text = f"{pipeline} takes a last_frame beside a first_frame only"
        return [Issue(by_role[Role.LAST_FRAME].at("role"), text, "missing", (Role.FIRST_FRAME.value,))]
    return []
