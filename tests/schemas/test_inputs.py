"""Inputs: what they may say, what becomes of them on a variant, and what is refused with which choices."""

from pathlib import Path
from typing import Any

import pytest

from cluster.cost.model import call_shape
from schemas.catalog import Catalog, Variant
from schemas.errors import CatalogError, InvalidRequestError, Issue
from schemas.inputs import Input, Kind, Role, inputs_of, read_input
from schemas.motion import Steer
from schemas.request import Mode, Request
from schemas.resolve import able_variants, resolve
from schemas.task import Group
from tests.pipelines.catalogs import TWO_VARIANTS, directed, parse_catalog

CATALOG = directed()


def group_of(*inputs: dict[str, Any], **fields: Any) -> Group:
    request = Request.model_validate({"prompt": "x", "variant": "vace", "inputs": inputs} | fields)
    return resolve(request.settings, CATALOG, inputs=request.input_specs, rank=lambda variant, group: 0.0)


def refused(*inputs: dict[str, Any], **fields: Any) -> list[Issue]:
    with pytest.raises(InvalidRequestError) as caught:
        group_of(*inputs, **fields)
    return list(caught.value.issues)


FIRST, LAST = {"role": "first_frame", "image": "a"}, {"role": "last_frame", "image": "b"}
KEY = {"role": "keyframe", "image": "c", "at_s": 1.0}
SOURCE, MASK = {"role": "source", "video": "v"}, {"role": "mask", "image": "m"}
EDGES = {"role": "structure", "video": "e", "kind": "edges"}
POSE = {"role": "structure", "video": "p", "kind": "pose"}
REFERENCE, STYLE = {"role": "reference", "image": "r"}, {"role": "style", "image": "s"}

WRONG: list[tuple[Any, str, str, str]] = [
    ("a.png", "inputs.0", "must be an object", ""),
    ({"image": "a"}, "inputs.0.role", "is missing", "first_frame, last_frame, keyframe, source, structure, mask"),
    ({"role": "first", "image": "a"}, "inputs.0.role", "unknown role 'first'", "first_frame, last_frame"),
    ({**EDGES, "kind": "lines"}, "inputs.0.kind", "unknown kind 'lines'", "depth, edges, pose, scribble, boxes, raw"),
    ({**FIRST, "weight": 1}, "inputs.0.weight", "no field of an input is called 'weight'", "role, image, video, at_s"),
    ({"role": "first_frame"}, "inputs.0", "first_frame needs one of image", ""),
    ({**FIRST, "video": "v"}, "inputs.0", "first_frame needs one of image", ""),
    ({"role": "last_frame", "video": "v"}, "inputs.0", "last_frame is given as image, not as video", ""),
    ({"role": "source", "image": "v"}, "inputs.0", "source is given as video, not as image", ""),
    ({"role": "keyframe", "image": "c"}, "inputs.0", "its place, as one of at_s, at_frame, at_share", ""),
    ({**KEY, "at_frame": 3}, "inputs.0", "its place, as one of at_s, at_frame, at_share", ""),
    ({**FIRST, "at_s": 0}, "inputs.0", "first_frame takes no at_s", ""),
    ({"role": "structure", "video": "e"}, "inputs.0", "needs its kind: one of depth, edges, pose", ""),
    ({**MASK, "kind": "edges"}, "inputs.0", "mask takes no kind: that is of a structure or a frame", ""),
    ({**EDGES, "strength": 1.5}, "inputs.0.strength", "less than or equal to 1", ""),
    ({**EDGES, "start": 0.5, "end": 0.25}, "inputs.0", "start must be before end", ""),
    ({**REFERENCE, "extract": True}, "inputs.0", "extract needs the kind of structure that is to be found", ""),
    ({**EDGES, "kind": "raw", "extract": "canny"}, "inputs.0", "extract needs the kind of structure", ""),
    ({**FIRST, "end": 2}, "inputs.0", "start and end are seconds of a video, and this is an image", ""),
]


@pytest.mark.parametrize(("value", "path", "message", "choices"), WRONG)
def test_what_an_input_may_not_say_is_refused_at_its_place_with_the_choices(
    value: Any, path: str, message: str, choices: str
) -> None:
    found, issues = read_input(value, "inputs.0")
    assert found is None
    assert issues[0].path == path
    assert message in issues[0].message
    assert ", ".join(issues[0].choices).startswith(choices)


def test_short_forms_are_inputs() -> None:
    request = Request(prompt="x", image="a", video="v", strength=0.4, inputs=(Input.model_validate(REFERENCE),))
    assert [(one.input.role, one.input.uri, one.input.strength, one.path) for one in request.all_inputs] == [
        (Role.REFERENCE, "r", None, "inputs.0"),
        (Role.FIRST_FRAME, "a", None, "image"),
        (Role.SOURCE, "v", 0.4, "video"),
    ]
    (alone,) = inputs_of((), "a", None, 0.4)
    assert (alone.input.role, alone.input.strength) == (Role.FIRST_FRAME, 0.4)


def test_a_short_form_and_its_input_are_the_same_group() -> None:
    assert group_of(image="a").key == group_of(FIRST).key
    video = {"variant": "vace", "video": "v"}
    assert group_of(**video).key == group_of(SOURCE).key


@pytest.mark.parametrize(
    ("inputs", "mode"),
    [
        ((), Mode.TEXT_TO_VIDEO),
        ((EDGES, REFERENCE), Mode.TEXT_TO_VIDEO),
        ((FIRST,), Mode.IMAGE_TO_VIDEO),
        ((LAST, REFERENCE), Mode.IMAGE_TO_VIDEO),
        ((KEY,), Mode.IMAGE_TO_VIDEO),
        ((SOURCE, MASK), Mode.VIDEO_TO_VIDEO),
        ((SOURCE, KEY), Mode.VIDEO_TO_VIDEO),
    ],
)
def test_the_mode_follows_from_the_inputs(inputs: tuple[dict[str, Any], ...], mode: Mode) -> None:
    assert group_of(*inputs).mode is mode


@pytest.mark.parametrize(
    ("place", "frame"),
    [({"at_s": 1.0}, 8), ({"at_s": 0.99}, 8), ({"at_frame": 3}, 3), ({"at_share": 0.5}, 8), ({"at_share": 1}, 16)],
)
def test_a_keyframe_s_place_becomes_a_frame_of_the_clip(place: dict[str, Any], frame: int) -> None:
    (condition,) = group_of({"role": "keyframe", "image": "c", **place}).conditions
    assert condition.frame == frame
    (condition,) = group_of({"role": "keyframe", "image": "c", "at_s": 1.0}, fps=4).conditions
    assert condition.frame == 4


REFUSED: list[tuple[tuple[dict[str, Any], ...], dict[str, Any], str, str, tuple[str, ...]]] = [
    (
        (LAST,),
        {"variant": "small"},
        "inputs.0.role",
        "small takes no last_frame; vace does",
        ("vace", "frames", "ends"),
    ),
    ((KEY,), {"variant": "ends"}, "inputs.0.role", "ends takes no keyframe; vace does", ("vace", "frames")),
    ((EDGES,), {"variant": "small"}, "inputs.0.role", "small takes no structure; vace does", ("vace",)),
    ((SOURCE, MASK), {"variant": "frames"}, "mode", "frames does not serve video_to_video; vace does", ()),
    ((STYLE,), {}, "inputs.0.role", "vace takes no style", ()),
    (({**EDGES, "kind": "pose"},), {}, "inputs.0.kind", "vace takes no structure of kind pose", ()),
    ((MASK,), {}, "inputs.0.role", "there is no source", ()),
    ((SOURCE, EDGES), {}, "inputs.1.role", "a structure needs a mask", ("mask",)),
    ((LAST,), {"variant": "ends"}, "inputs.0.role", "beside a first_frame only", ("first_frame",)),
    ((FIRST, FIRST), {}, "inputs.1.role", "a second first_frame", ()),
    (({**KEY, "at_s": 3.0},), {}, "inputs.0.at_s", "after the end: the clip's last is 2.000 s", ()),
    (({"role": "keyframe", "image": "c", "at_frame": 17},), {}, "inputs.0.at_frame", "last is frame 16", ()),
    ((FIRST, {"role": "keyframe", "image": "c", "at_frame": 0}), {}, "inputs.1", "frame 0 is given twice", ()),
    (({**SOURCE, "strength": 0.5},), {}, "inputs.0.strength", "takes no strength of a source", ("first_frame",)),
    (({**FIRST, "strength": 0.5},), {"variant": "ends"}, "inputs.0.strength", "takes no strength of a first_frame", ()),
    (
        ({**EDGES, "strength": 0.5}, {**REFERENCE, "strength": 0.7}),
        {},
        "inputs.1.strength",
        "one strength for all inputs",
        ("0.5",),
    ),
    (({**EDGES, "extract": "dpt"},), {}, "inputs.0.extract", "'dpt' finds no edges (on vace)", ("canny",)),
    (
        ({**EDGES, "kind": "depth", "extract": True},),
        {},
        "inputs.0.extract",
        "nobody here finds depth; an [extract",
        (),
    ),
    (
        ({**EDGES, "kind": "depth", "extract": "canny"},),
        {},
        "inputs.0.extract",
        "'canny' finds no depth; an [extract",
        (),
    ),
    ((FIRST,), {"strength": 0.5}, "strength", "short form beside image or video", ()),
    ((), {"image": "a", "strength": 0.5, "variant": "small"}, "strength", "takes no strength of a first_frame", ()),
    ((FIRST,), {"mode": "text_to_video"}, "inputs.0.role", "text_to_video takes no first_frame", ()),
    ((REFERENCE,), {"mode": "image_to_video"}, "image", "image_to_video needs an image", ()),
    (tuple({**KEY, "at_frame": n, "at_s": None} for n in range(21)), {}, "inputs", "21 of them, at most 20", ()),
]


@pytest.mark.parametrize(("inputs", "fields", "path", "message", "choices"), REFUSED)
def test_what_a_variant_cannot_do_is_refused_with_those_that_can(
    inputs: tuple[dict[str, Any], ...], fields: dict[str, Any], path: str, message: str, choices: tuple[str, ...]
) -> None:
    issue = next(one for one in refused(*inputs, **fields) if one.path == path)
    assert message in issue.message
    assert issue.choices[: len(choices)] == choices


def test_auto_takes_a_variant_that_can() -> None:
    assert group_of(EDGES, variant="auto").variant == "vace"
    assert group_of(FIRST, variant="auto").variant == "small"
    (issue,) = refused(STYLE, variant="auto")
    assert "no variant fits" in issue.message


CHANGES: list[tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]] = [
    ((FIRST,), (LAST,)),
    ((FIRST,), ({**FIRST, "strength": 0.5},)),
    ((KEY,), ({**KEY, "at_s": 1.5},)),
    ((KEY,), ()),
    ((SOURCE,), (SOURCE, MASK)),
    ((SOURCE, MASK), (SOURCE, {"role": "mask", "video": "m"})),
    ((EDGES,), ({**EDGES, "kind": "depth"},)),
    ((EDGES,), ({**EDGES, "extract": True},)),
    ((REFERENCE,), (REFERENCE, REFERENCE)),
    ((REFERENCE, EDGES), (EDGES,)),
]


@pytest.mark.parametrize(("one", "other"), CHANGES)
def test_whatever_an_input_says_is_in_the_group_and_in_the_fingerprint(
    one: tuple[dict[str, Any], ...], other: tuple[dict[str, Any], ...]
) -> None:
    groups = [group_of(*inputs) for inputs in (one, other, one)]
    assert groups[0].key == groups[2].key != groups[1].key
    prints = [group.fingerprint("x", "", 1, tuple("same" for _ in group.conditions)) for group in groups]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize("role", list(Role))
def test_what_an_input_shows_is_in_the_fingerprint(role: Role) -> None:
    inputs = {
        Role.FIRST_FRAME: FIRST, Role.LAST_FRAME: LAST, Role.KEYFRAME: KEY, Role.SOURCE: SOURCE,
        Role.STRUCTURE: EDGES, Role.REFERENCE: REFERENCE,
    }  # fmt: skip
    group = group_of(*((SOURCE, MASK) if role is Role.MASK else (inputs.get(role, REFERENCE),)))
    media = [f"sha256:{place}" for place in range(len(group.conditions))]
    other = [*media[:-1], "sha256:other"]
    assert group.fingerprint("x", "", 1, media) != group.fingerprint("x", "", 1, other)
    assert group.fingerprint("x", "", 1, media) == group.fingerprint("x", "", 1, list(media))


def test_what_the_model_sees_beside_the_clip_is_paid_for() -> None:
    def latent_frames(group: Group) -> int:
        variant: Variant = CATALOG[group.variant]
        return (call_shape(variant, group).frames - group.frames) // variant.latent.temporal

    assert [latent_frames(group_of(*inputs)) for inputs in ((), (EDGES,), (REFERENCE,), (REFERENCE, REFERENCE))] == [
        0, 0, 1, 2,
    ]  # fmt: skip
    assert latent_frames(group_of(FIRST, KEY, LAST, variant="frames")) == 2, "the first stands in the clip's own"
    assert latent_frames(group_of(FIRST, LAST)) == 0


def test_a_catalog_may_not_promise_what_the_class_cannot_carry() -> None:
    def catalog(conditions: str, pipeline: str = "LTXConditionPipeline") -> None:
        text = f"""
        [variants.one]
        pipeline = "{pipeline}"
        weights = "a/b"
        modes = ["text_to_video", "image_to_video"]
        steps = 1
        fps = 8
        shape = {{ divisor = 32, max_frames = 9, max_pixels = 4096, native = [[64, 64, 9]] }}
        latent = {{ channels = 4, spatial = 8, temporal = 8 }}
        conditions = {conditions}
        """
        parse_catalog(text, "c.toml")

    catalog('["first_frame", "keyframe"]')
    with pytest.raises(CatalogError, match=r"carries no 'mask'; available: first_frame, last_frame, keyframe"):
        catalog('["mask"]')
    with pytest.raises(CatalogError, match="WanPipeline carries no 'last_frame'; available: first_frame"):
        catalog('["last_frame"]', "WanPipeline")
    with pytest.raises(CatalogError, match="no kind of structure; available: structure:depth, structure:edges"):
        catalog('["structure:lines"]', "WanVACEPipeline")


def drawn(pipeline: str, controlnet: str, more: str = "") -> Variant:
    """The entry of an AnimateDiff with a ControlNet, as a catalog's author writes it."""
    text = f"""
    [variants.drawn]
    pipeline = "{pipeline}"
    weights = "a/b"
    modes = ["text_to_video", "image_to_video", "video_to_video"]
    {controlnet}
    steps = 1
    fps = 8
    shape = {{ divisor = 8, max_frames = 16, max_pixels = 4096, native = [[64, 64, 16]] }}
    latent = {{ channels = 4, spatial = 8, temporal = 1 }}
    {more}
    """
    return parse_catalog(text, "c.toml")["drawn"]


COSMOS = "Cosmos2_5_TransferPipeline"
DRAWN, SPARSE = "AnimateDiffControlNetPipeline", "AnimateDiffSparseControlNetPipeline"


@pytest.mark.parametrize(
    ("pipeline", "controlnet", "message"),
    [
        (COSMOS, "", "needs a controlnet and what it follows: .* kinds: depth, edges, pose, scribble, boxes, raw"),
        (DRAWN, "", "needs a controlnet and what it follows: .* kinds: depth, edges, pose, scribble, boxes, raw"),
        (
            "WanPipeline",
            'controlnet = { kind = "edges" }',
            "WanPipeline takes none; available: AnimateDiffControlNetPip",
        ),
        (DRAWN, 'controlnet = { source = "a/c" }', "variants.drawn.controlnet.kind: Field required"),
        (DRAWN, 'controlnet = { kind = "lines" }', "controlnet.kind: .*'depth', 'edges', 'pose', 'scribble'"),
        (
            DRAWN,
            'controlnet = { kind = "edges" }\nconditions = ["structure:depth"]',
            "'structure:depth' is not what its controlnet follows; available: structure:edges",
        ),
        (
            SPARSE,
            'controlnet = { kind = "raw" }\nconditions = ["structure"]',
            "available: first_frame, last_frame, key",
        ),
    ],
)
def test_an_entry_names_its_controlnet_and_what_that_follows(pipeline: str, controlnet: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        drawn(pipeline, controlnet)


STYLED = 'ip_adapter = { source = "a/ip", weight_file = "ip.safetensors" }'
ON_SOURCE = 'pipelines = { video_to_video = "AnimateDiffVideoToVideoPipeline" }'


def test_an_adapter_for_styles_lets_its_variant_take_them() -> None:
    plain, styled = (drawn("AnimateDiffPipeline", f"{ON_SOURCE}\n{part}") for part in ("", STYLED))
    assert plain.all_roles == (Role.SOURCE,)
    assert styled.roles(Mode.TEXT_TO_VIDEO) == (Role.STYLE,)
    assert styled.roles(Mode.VIDEO_TO_VIDEO) == (Role.SOURCE, Role.STYLE)
    assert plain.digest != styled.digest
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(plain, STYLE)
    assert (caught.value.issues[0].path, caught.value.issues[0].message) == (
        "inputs.0.role",
        "drawn takes no style",
    )
    assert resolved_on(styled, STYLE).key != resolved_on(styled).key
    assert resolved_on(styled, STYLE).key != resolved_on(styled, {**STYLE, "strength": 0.5}).key
    takers = "AnimateDiffPipeline, AnimateDiffVideoToVideoPipeline, AnimateDiffControlNetPipeline"
    with pytest.raises(CatalogError, match=f"drawn: ip_adapter: WanPipeline takes none; available: {takers}"):
        drawn("WanPipeline", STYLED)
    with pytest.raises(CatalogError, match="carries no 'style'; available: source"):
        drawn("AnimateDiffPipeline", ON_SOURCE, 'conditions = ["style"]')
    with pytest.raises(CatalogError, match="ip_adapter.weight_file: Field required"):
        drawn("AnimateDiffPipeline", 'ip_adapter = { source = "a/ip" }')


def test_a_style_and_a_structure_have_a_strength_each_and_several_styles_have_one() -> None:
    both = drawn(DRAWN, f'{STYLED}\ncontrolnet = {{ kind = "edges" }}')
    strong, weak = {**STYLE, "strength": 0.9}, {**STYLE, "strength": 0.2}
    assert len(resolved_on(both, {**EDGES, "strength": 0.2}, strong, strong).conditions) == 3
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(both, strong, weak)
    (issue,) = caught.value.issues
    assert issue.path == "inputs.1.strength"
    assert "one strength for all style inputs of a clip" in issue.message
    assert issue.choices == ("0.9",)


def test_what_a_controlnet_follows_is_what_its_variant_takes() -> None:
    edges, sparse = drawn(DRAWN, 'controlnet = { kind = "edges" }'), drawn(SPARSE, 'controlnet = { kind = "scribble" }')
    assert edges.roles(Mode.TEXT_TO_VIDEO) == (Role.STRUCTURE,)
    assert edges.kinds(Role.STRUCTURE) == (Kind.EDGES,)
    assert sparse.roles(Mode.IMAGE_TO_VIDEO) == (Role.FIRST_FRAME, Role.LAST_FRAME, Role.KEYFRAME)
    assert sparse.kinds(Role.KEYFRAME) == (Kind.SCRIBBLE,)
    pictures = drawn(SPARSE, 'controlnet = { kind = "raw" }')
    assert pictures.kinds(Role.FIRST_FRAME) == (Kind.RAW,)


def resolved_on(variant: Variant, *inputs: dict[str, Any], **fields: Any) -> Group:
    catalog = Catalog(variants={**CATALOG.variants, variant.name: variant})
    request = Request.model_validate({"prompt": "x", "variant": variant.name, "inputs": inputs} | fields)
    return resolve(request.settings, catalog, inputs=request.input_specs, rank=lambda variant, group: 0.0)


@pytest.mark.parametrize(
    ("pipeline", "kind", "given", "path", "message", "able"),
    [
        (
            DRAWN,
            "depth",
            EDGES,
            "inputs.0.kind",
            "drawn takes no structure of kind edges, but of depth; vace",
            ("vace",),
        ),
        (
            SPARSE,
            "scribble",
            KEY,
            "inputs.0.kind",
            "drawn takes no keyframe of kind raw, but of scribble; vace does",
            (),
        ),
        (SPARSE, "raw", {**KEY, "kind": "scribble"}, "inputs.0.kind", "keyframe of kind scribble, but of raw", ()),
        (
            COSMOS,
            "depth",
            EDGES,
            "inputs.0.kind",
            "drawn takes no structure of kind edges, but of depth; vace",
            ("vace",),
        ),
        (DRAWN, "edges", REFERENCE, "inputs.0.role", "drawn takes no reference; vace does", ("vace",)),
        (SPARSE, "raw", EDGES, "inputs.0.role", "drawn takes no structure; vace does", ("vace",)),
    ],
)
def test_another_kind_than_the_controlnet_follows_is_refused(
    pipeline: str, kind: str, given: dict[str, Any], path: str, message: str, able: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(drawn(pipeline, f'controlnet = {{ kind = "{kind}" }}'), given)
    issue = next(one for one in caught.value.issues if one.path == path)
    assert message in issue.message
    assert issue.choices[: len(able)] == able


def test_of_a_cosmos_the_controlnet_its_branch_and_the_strength_are_part_of_the_task() -> None:
    branch = 'controlnet = { source = "a/c", revision = "edge", kind = "edges" }'
    one, other = (drawn(COSMOS, text) for text in (branch, branch.replace('"edge"', '"other"')))
    assert one.digest != other.digest
    assert resolved_on(one, EDGES).key != resolved_on(one, {**EDGES, "strength": 0.5}).key
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(one)
    assert caught.value.issues[0].message == "drawn renders over a structure of kind edges, and there is none"


def test_a_frame_that_says_that_it_is_a_picture_is_no_other_task() -> None:
    pictures = drawn(SPARSE, 'controlnet = { kind = "raw" }')
    assert resolved_on(pictures, KEY).key == resolved_on(pictures, {**KEY, "kind": "raw"}).key
    assert resolved_on(pictures, KEY).key != resolved_on(pictures, {**KEY, "strength": 0.5}).key


def test_a_controlnet_is_part_of_the_variant_and_none_is_what_it_was() -> None:
    one, other = (drawn(DRAWN, f'controlnet = {{ source = "a/{name}", kind = "edges" }}') for name in "cd")
    assert one.digest != other.digest
    assert CATALOG["vace"].digest == "f2e9ad8ca0b81278"


FUN = 'conditions = ["structure:pose", "structure:depth"]'


def only_over_a_structure() -> Variant:
    return drawn("CogVideoXFunControlPipeline", "", FUN).model_copy(update={"modes": (Mode.TEXT_TO_VIDEO,)})


def test_a_class_that_cannot_be_called_without_a_structure_says_so_before_anything_is_rendered() -> None:
    fun = only_over_a_structure()
    assert fun.needed(Mode.TEXT_TO_VIDEO) == (Role.STRUCTURE,)
    assert fun.needed(Mode.VIDEO_TO_VIDEO) == ()
    assert resolved_on(fun, POSE).conditions[0].kind is Kind.POSE
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(fun)
    (issue,) = caught.value.issues
    assert (issue.path, issue.code, issue.choices) == ("inputs", "missing", ("structure",))
    assert issue.message == "drawn renders over a structure of kind depth or pose, and there is none"
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(fun, EDGES)
    assert "drawn takes no structure of kind edges, but of depth, pose; vace does" in caught.value.issues[0].message
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(fun, {**POSE, "strength": 0.5})
    assert "CogVideoXFunControlPipeline takes no strength of a structure" in caught.value.issues[0].message


def test_who_needs_a_structure_is_not_named_or_chosen_where_there_is_none() -> None:
    fun = only_over_a_structure()
    catalog = Catalog(variants={fun.name: fun, **CATALOG.variants})
    request = Request.model_validate({"prompt": "x", "variant": "auto"})
    group = resolve(request.settings, catalog, rank=lambda variant, group: float(variant.name != fun.name))
    assert group.variant != fun.name
    assert fun.name not in able_variants(catalog, Mode.TEXT_TO_VIDEO)
    pose = Input.model_validate(POSE).spec("inputs.0")
    assert fun.name in able_variants(catalog, Mode.TEXT_TO_VIDEO, (pose,))


def test_what_a_control_video_is_and_of_which_kind_is_part_of_its_task() -> None:
    fun = only_over_a_structure()
    pose, depth = resolved_on(fun, POSE), resolved_on(fun, {**POSE, "kind": "depth"})
    prints = [group.fingerprint("x", "", 0, media) for group in (pose, depth) for media in (("a",), ("b",))]
    assert len(set(prints)) == 4


CAMERA = [{"at_s": 1, "pan": 10}]


def easy(pipeline: str, more: str = "") -> Variant:
    return drawn(f"EasyAnimate{pipeline}Pipeline", "", more)


@pytest.mark.parametrize(
    ("inputs", "fields", "path", "message", "choices"),
    [
        ((SOURCE,), {}, "inputs.0.role", "makes all of it anew; a mask or a strength below 1 keeps some",
         ("mask", "edit.region", "strength")),
        ((), {"video": "v"}, "video", "nothing of it would be seen", ("mask", "edit.region", "strength")),
        ((LAST,), {}, "inputs.0.role", "takes a last_frame beside a first_frame only", ("first_frame",)),
        ((KEY,), {}, "inputs.0.role", "drawn takes no keyframe; vace does", ("vace",)),
        ((FIRST,), {"strength": 0.5}, "strength", "", ()),
        ((FIRST,), {"camera": CAMERA}, "camera", "drawn follows no camera; vace does", ("vace",)),
        ((SOURCE, {**MASK, "strength": 0.5}), {}, "inputs.1.strength", "takes no strength of a mask", ("source",)),
    ],
)  # fmt: skip
def test_what_an_inpainting_class_would_not_see_is_refused(
    inputs: tuple[dict[str, Any], ...], fields: dict[str, Any], path: str, message: str, choices: tuple[str, ...]
) -> None:
    variant = easy("Inpaint", "strength = 1.0")
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(variant, *inputs, **fields)
    issue = next(one for one in caught.value.issues if one.path == path)
    assert message in issue.message
    assert issue.choices[: len(choices)] == choices


def test_an_inpainting_class_sees_of_a_source_what_a_mask_or_a_strength_keeps() -> None:
    variant = easy("Inpaint", "strength = 1.0")
    told = [
        ((SOURCE, MASK), {}),
        ((SOURCE,), {"edit": {"region": [0, 0, 0.5, 1]}}),
        (({**SOURCE, "strength": 0.5},), {}),
        (({**SOURCE, "strength": 0.5}, MASK), {}),
        ((SOURCE, MASK, LAST), {}),
        ((FIRST, LAST), {}),
        ((FIRST,), {}),
        ((), {}),
    ]
    assert len({resolved_on(variant, *inputs, **fields).key for inputs, fields in told}) == len(told)
    assert resolved_on(easy("Inpaint"), SOURCE).conditions[0].strength == 0.7, "an entry may say that less is made anew"


def test_a_class_of_structures_or_cameras_follows_what_its_entry_says() -> None:
    plain, told = easy("Control", 'conditions = ["structure:depth"]'), easy("Control", 'conditions = ["camera"]')
    assert (plain.all_roles, plain.all_steers) == ((Role.STRUCTURE,), ())
    assert (told.all_roles, told.all_steers) == ((), (Steer.CAMERA,))
    assert easy("Control").all_steers == (), "not without the word"
    still, moves = resolved_on(told), resolved_on(told, camera=CAMERA)
    assert still.key != moves.key
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(told, camera=[{"at_s": 0, "pan": 10}])
    assert caught.value.issues[0].message == "the clip begins where the camera stands: there the camera rests at 0 s"
    with pytest.raises(InvalidRequestError) as caught:
        resolved_on(told, EDGES)
    assert "drawn takes no structure; vace does" in caught.value.issues[0].message


EXTRACTORS = """
[extractors.fine]
method = "canny"
low = 20
high = 60
[extractors.far]
method = "depth"
weights = "./dpt"
"""


def test_who_finds_a_structure_is_in_the_group_by_how_it_does_and_not_by_its_name() -> None:
    more = parse_catalog(TWO_VARIANTS + EXTRACTORS, "c.toml", Path("/catalogs"))
    catalog = Catalog(variants=CATALOG.variants, extractors=more.extractors)

    def group(**fields: Any) -> Group:
        request = Request.model_validate({"prompt": "x", "variant": "vace", "inputs": [{**EDGES, **fields}]})
        return resolve(request.settings, catalog, inputs=request.input_specs, rank=lambda variant, group: 0.0)

    assert group(extract=True).key == group(extract="auto").key == group(extract="canny").key
    assert group(extract=False).key == group().key == group_of(EDGES).key
    assert group(extract="fine").key != group(extract="canny").key
    depth = group(kind="depth", extract=True).conditions[0].extract
    assert depth is not None
    assert (depth.method, depth.weights) == ("depth", str(Path("/catalogs/dpt")))
    again = Catalog(
        variants=CATALOG.variants,
        extractors={"other": more.extractors["fine"].model_copy(update={"name": "other", "title": "another name"})},
    )
    request = Request.model_validate({"prompt": "x", "variant": "vace", "inputs": [{**EDGES, "extract": True}]})
    named = resolve(request.settings, again, inputs=request.input_specs, rank=lambda variant, group: 0.0)
    assert named.key == group(extract="fine").key


def test_tasks_of_before_there_were_extractors_are_what_they_were() -> None:
    group = group_of(EDGES)
    assert "extract" not in group.conditions[0].model_dump()
    assert group.key == "5b0a411ef8a0d6d4"
    found = group_of({**EDGES, "extract": True})
    assert Group.model_validate_json(found.model_dump_json()) == found, "as stores and messages carry it"


def test_what_a_variant_takes_is_told() -> None:
    assert CATALOG["ends"].all_roles == (Role.FIRST_FRAME, Role.LAST_FRAME)
    assert CATALOG["frames"].all_roles == (Role.FIRST_FRAME, Role.LAST_FRAME, Role.KEYFRAME)
    assert CATALOG["vace"].all_roles == tuple(role for role in Role if role is not Role.STYLE)
    assert CATALOG["vace"].kinds(Role.STRUCTURE) == (Kind.DEPTH, Kind.EDGES)
    assert CATALOG["vace"].kinds(Role.KEYFRAME) == (Kind.RAW,)
    assert CATALOG["small"].kinds(Role.STRUCTURE) == ()
