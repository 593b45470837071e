"""LoRAs that requests bring act as those of the catalog do, and on nobody else."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import peft
import pytest

from models.adapters import Adapters
from models.loaded import LoadedModel
from models.loader import load
from models.model import Frames, TaskMedia
from schemas.errors import RenderError
from schemas.loras import WITHOUT, Lora, is_allowed
from schemas.request import Mode
from tests.models.conftest import TinyFolder
from tests.models.tiny_variants import batch_of, group_of, tiny_variant

T2V = Mode.TEXT_TO_VIDEO
VIDEO = (
    "Video", "Wan", "LTX", "CogVideoX", "EasyAnimate", "AnimateDiff", "Mochi", "Allegro", "Cosmos", "SkyReels",
    "Kandinsky5",
)  # fmt: skip


def save_lora(folder: Path, base: Path, seed: int) -> str:
    import torch

    pipe = load(tiny_variant("wan", base), device="cpu", modes=[T2V]).pipes[T2V]
    torch.manual_seed(seed)
    pipe.transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = peft.get_peft_model_state_dict(pipe.transformer)
    pipe.save_lora_weights(folder, transformer_lora_layers=layers)
    return str(folder)


@pytest.fixture(scope="module")
def base(tiny_folder: TinyFolder) -> Path:
    return tiny_folder("wan")


@pytest.fixture(scope="module")
def sources(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    root = tmp_path_factory.mktemp("loras")
    return tuple(save_lora(root / f"l{seed}", base, seed) for seed in range(3))


def fresh(base: Path, most: int = 8, **entry: Any) -> LoadedModel:
    model = load(tiny_variant("wan", base, **entry), device="cpu", modes=[T2V])
    model.adapters._most = most
    return model


def clip(model: LoadedModel, *loras: Lora) -> Frames:
    group = group_of(model.variant, steps=2).model_copy(update={"loras": loras})
    (found,) = model.render(batch_of(group, "a"), (TaskMedia(),), lambda *_: None, frozenset)
    assert isinstance(found, np.ndarray), found
    return found


def test_a_lora_changes_the_pixels_as_one_of_the_catalog_does(base: Path, sources: tuple[str, ...]) -> None:
    plain = clip(fresh(base))
    brought = clip(fresh(base), Lora(source=sources[0], weight=0.8))
    assert (brought != plain).any()
    own = clip(fresh(base, loras=[{"source": sources[0], "weight": 0.8}]))
    np.testing.assert_array_equal(brought, own)
    assert (clip(fresh(base), Lora(source=sources[0], weight=0.4)) != brought).any()


def test_one_model_makes_of_each_what_a_fresh_one_makes(base: Path, sources: tuple[str, ...]) -> None:
    a, b, c = (Lora(source=source) for source in sources)
    wanted = {name: clip(fresh(base), *loras) for name, loras in {"": (), "a": (a,), "b": (b,), "ab": (a, b)}.items()}
    assert len({one.tobytes() for one in wanted.values()}) == 4
    model = fresh(base, most=2)
    for name, loras in (("a", (a,)), ("", ()), ("b", (b,)), ("a", (a,)), ("ab", (a, b))):
        np.testing.assert_array_equal(clip(model, *loras), wanted[name], err_msg=name)
    # No more are kept than may be: the one that was not used for the longest goes, and comes back the same.
    clip(model, b)
    clip(model, c)
    assert model.adapters.kept == (sources[1], sources[2])
    np.testing.assert_array_equal(clip(model, a), wanted["a"])
    np.testing.assert_array_equal(clip(model), wanted[""])


def test_the_catalog_s_own_act_beside_them_and_afterwards(base: Path, sources: tuple[str, ...]) -> None:
    model = fresh(base, loras=[{"source": sources[0]}])
    own = clip(model)
    both = clip(model, Lora(source=sources[1]))
    np.testing.assert_array_equal(both, clip(fresh(base), Lora(source=sources[0]), Lora(source=sources[1])))
    np.testing.assert_array_equal(clip(model), own)


def test_bytes_bound_what_is_kept(base: Path, sources: tuple[str, ...]) -> None:
    model = fresh(base)
    model.adapters._most_bytes = 1
    for source in sources:
        clip(model, Lora(source=source))
        assert model.adapters.kept == (source,)


def test_one_that_does_not_fit_fails_its_task_and_the_next_is_as_before(
    base: Path, sources: tuple[str, ...], tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "odd").mkdir()
    odd = {f"transformer.blocks.0.attn1.to_q.lora_{x}.weight": np.zeros(s, np.float32) for x, s in
           (("A", (2, 7)), ("B", (7, 2)))}  # fmt: skip
    save_file(odd, tmp_path / "odd" / "pytorch_lora_weights.safetensors")
    model = fresh(base)
    plain = clip(model)
    for source in (str(tmp_path / "odd"), str(tmp_path / "none")):
        with pytest.raises(RenderError, match=r"LoRA .*: it cannot be loaded onto WanPipeline"):
            clip(model, Lora(source=source))
    np.testing.assert_array_equal(clip(model), plain)
    np.testing.assert_array_equal(clip(model, Lora(source=sources[0])), clip(fresh(base), Lora(source=sources[0])))


def test_classes_that_take_no_lora_are_known_before_anything_is_rendered() -> None:
    classes = [name for name in dir(diffusers) if name.endswith("Pipeline") and any(word in name for word in VIDEO)]
    lacking = {name for name in classes if not hasattr(getattr(diffusers, name), "load_lora_weights")}
    assert lacking >= WITHOUT - {"Footage"}
    # Those that are no models from a prompt to a clip: upscalers, decoders, modular ones, pictures.
    others = {name for name in lacking if any(w in name for w in ("Upsample", "Decode", "Modular", "ToImage"))}
    assert lacking - others == WITHOUT - {"Footage"}


@pytest.mark.parametrize(
    ("source", "is_taken"),
    [
        ("owner/name", True),
        ("/loras/style", True),
        ("/loras/a/b", True),
        ("/loras/../secret", False),
        ("/loras/./style", False),
        ("/loras", False),
        ("/lorasx/style", False),
        ("owner/name2", False),
        ("s3://bucket/x", False),
    ],
)
def test_what_may_be_brought_is_named_or_lies_below_what_is_named(source: str, is_taken: bool) -> None:
    assert is_allowed(source, ("owner/name", "/loras/")) is is_taken


def test_nothing_is_done_where_nothing_is_brought() -> None:
    def find(source: str) -> tuple[Path, str]:
        raise AssertionError(source)

    with Adapters((), find).acting(object(), ()) as on_text:
        assert on_text == ""
