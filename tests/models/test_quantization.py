"""Denoisers in fewer bits: smaller, other pixels, but not many others; and refused where they cannot be."""

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file

from models.checking import problems
from models.loaded import LoadedModel
from models.loader import load
from models.model import Frames, ignore_step, nobody_cancelled
from models.quantization import denoiser_bytes
from schemas.catalog import SpeedSettings, parse_catalog
from schemas.errors import CatalogError, VariantLoadError
from schemas.loras import Lora
from tests.models.conftest import TinyFolder, TinyModel
from tests.models.test_adapters import clip as lora_clip
from tests.models.test_adapters import fresh, save_lora
from tests.models.tiny_variants import batch_of, group_of, media_of, tiny_variant
from tests.pipelines.catalogs import TWO_VARIANTS


def clip(model: LoadedModel) -> Frames:
    batch = batch_of(group_of(model.variant), "a red ball")
    (found,) = model.render(batch, media_of(batch), ignore_step, nobody_cancelled)
    assert isinstance(found, np.ndarray)
    return found


def psnr_db(one: Frames, other: Frames) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def as_gguf(folder: Path, file: Path) -> str:
    """A denoiser's weights as a GGUF file: eight bits where a row is whole blocks, else as they are."""
    writer = gguf.GGUFWriter(str(file), "ltxv")
    eight = gguf.GGMLQuantizationType.Q8_0
    for name, weights in load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors").items():
        if weights.ndim == 2 and weights.shape[1] % 32 == 0 and "scale_shift" not in name:
            writer.add_tensor(name, gguf.quants.quantize(weights, eight), raw_dtype=eight)
        else:
            writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(file)


def speed_of(kind: str, folder: Path, tmp_path: Path) -> dict[str, Any]:
    if kind == "gguf":
        return {"quantization": kind, "gguf": as_gguf(folder, tmp_path / "denoiser.gguf")}
    return {"quantization": kind}


@pytest.mark.parametrize(("kind", "least_db"), [("int8", 45.0), ("fp8", 35.0), ("gguf", 45.0)])
def test_a_quantized_denoiser_is_smaller_and_shows_nearly_the_same(
    kind: str, least_db: float, tmp_path: Path, tiny_folder: TinyFolder, tiny_model: TinyModel
) -> None:
    plain, folder = tiny_model("ltx"), tiny_folder("ltx")
    variant = tiny_variant("ltx", folder, speed=speed_of(kind, folder, tmp_path))
    model = load(variant, modes=variant.modes[:1], device="cpu")
    weights = {type(one.weight).__name__ for one in model.pipes[variant.modes[0]].transformer.modules()
               if isinstance(one, torch.nn.Linear)}  # fmt: skip
    assert weights & {"Int8Tensor", "Float8Tensor", "GGUFParameter"}
    assert model.denoiser_bytes < 0.6 * plain.denoiser_bytes
    assert variant.digest != plain.variant.digest
    one, other = clip(plain), clip(model)
    assert not np.array_equal(one, other)
    assert psnr_db(one, other) > least_db


def test_loras_act_on_a_quantized_denoiser_as_on_a_plain_one(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    base = tiny_folder("wan")
    ink = Lora(source=save_lora(tmp_path / "ink", base, 0), weight=0.8)
    quantized = fresh(base, speed={"quantization": "int8"})
    with_it, without = lora_clip(quantized, ink), lora_clip(quantized)
    assert psnr_db(with_it, lora_clip(fresh(base), ink)) > psnr_db(with_it, without) + 6


def test_bytes_of_a_denoiser_are_those_of_its_weights(tiny_model: TinyModel) -> None:
    pipe = next(iter(tiny_model("ltx").pipes.values()))
    assert denoiser_bytes(pipe) == sum(4 * one.numel() for one in pipe.transformer.parameters())


def test_a_variant_without_it_keeps_its_digest() -> None:
    """As before there was quantization: what is stored is found."""
    assert parse_catalog(TWO_VARIANTS, "c.toml")["small"].digest == "695a0201e908245c"


@pytest.mark.parametrize(
    ("speed", "told"),
    [
        ('quantization = "int4"', "speed.quantization: Input should be 'int8', 'fp8' or 'gguf'"),
        ('quantization = "gguf"', "'gguf' and the file `gguf` go together"),
        ('gguf = "./a.gguf"', "'gguf' and the file `gguf` go together"),
        ('quantization = "gguf", gguf = "./a.safetensors"', "gguf: a file"),
    ],
)
def test_a_catalog_says_where_quantization_is_wrong(speed: str, told: str) -> None:
    text = TWO_VARIANTS.replace("fps = 8\n", f"fps = 8\nspeed = {{ {speed} }}\n", 1)
    with pytest.raises(CatalogError, match="variants.small.speed") as error:
        parse_catalog(text, "c.toml")
    assert told in str(error.value)


def test_a_class_that_reads_no_gguf_is_refused_with_the_kinds_that_it_can(
    tmp_path: Path, tiny_folder: TinyFolder
) -> None:
    (tmp_path / "a.gguf").touch()
    speed = {"quantization": "gguf", "gguf": str(tmp_path / "a.gguf")}
    variant = tiny_variant("cogvideox", tiny_folder("cogvideox"), speed=speed)
    with pytest.raises(VariantLoadError, match="CogVideoXTransformer3DModel cannot .* available: int8, fp8"):
        load(variant, device="cpu")
    assert problems(variant) == (
        "speed.quantization: 'gguf': CogVideoXPipeline's denoiser cannot be read from one file; available: int8, fp8",
    )


def test_a_file_that_is_not_there_or_no_denoiser_is_refused(tmp_path: Path, tiny_folder: TinyFolder) -> None:
    speed = {"quantization": "gguf", "gguf": str(tmp_path / "a.gguf")}
    variant = tiny_variant("ltx", tiny_folder("ltx"), speed=speed)
    assert problems(variant) == (f"speed.gguf: {tmp_path / 'a.gguf'}: not there",)
    with pytest.raises(VariantLoadError, match="a.gguf: not there"):
        load(variant, device="cpu")
    (tmp_path / "a.gguf").write_bytes(b"not this")
    with pytest.raises(VariantLoadError, match="a.gguf: no such denoiser"):
        load(variant, device="cpu")


@pytest.mark.parametrize(("kind", "library"), [("int8", "torchao"), ("gguf", "gguf")])
def test_without_its_library_the_extra_is_named(
    kind: str, library: str, tmp_path: Path, tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = speed_of(kind, tiny_folder("ltx"), tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(VariantLoadError, match=rf"needs {library}: pip install 'rushes\[quantize\]'"):
        load(tiny_variant("ltx", tiny_folder("ltx"), speed=speed), device="cpu")


def test_settings_of_one_kind_are_refused_with_another() -> None:
    with pytest.raises(ValidationError, match="go together"):
        SpeedSettings(quantization="int8", gguf="./a.gguf")
