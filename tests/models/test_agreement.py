"""Agreement of frames and prompt by a CLIP of the user's: a real one, with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTextModel

from models.agreement import load_agreement
from schemas.errors import VariantLoadError
from training.tiny_text import CLIP_VOCABULARY, clip_text_encoder, clip_tokenizer

TEXT = {"vocab_size": CLIP_VOCABULARY, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
SIZES = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
RED = np.broadcast_to(np.array((220, 30, 30), np.uint8), (3, 48, 64, 3))
NOISE = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**TEXT, **SIZES}, vision_config={**SIZES, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(place)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=images, tokenizer=clip_tokenizer()).save_pretrained(place)
    return place


def test_the_score_is_the_mean_cosine_of_the_towers(folder: Path) -> None:
    agreement = load_agreement(str(folder), device="cpu")
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    for pictures in (RED, NOISE):
        inputs = processor(text=["a red wall"], images=list(pictures), return_tensors="pt", padding="max_length")
        with torch.inference_mode():
            # Of CLIP's own logits, which are cosines times a temperature.
            expected = model(**inputs).logits_per_image.mean() / model.logit_scale.exp()
        assert agreement.score(pictures, "a red wall") == pytest.approx(float(expected), abs=1e-5)
    assert agreement.score(RED, "a red wall") != pytest.approx(agreement.score(NOISE, "a red wall"), abs=1e-3)
    assert agreement.score(RED, "a red wall") != pytest.approx(agreement.score(RED, "something else"), abs=1e-4)


def test_a_prompt_longer_than_the_model_reads_is_cut(folder: Path) -> None:
    agreement = load_agreement(str(folder), device="cpu")
    assert -1 <= agreement.score(RED, "word " * 500) <= 1
    assert -1 <= agreement.score(RED[:1], "") <= 1


def test_its_revision_is_of_its_content(folder: Path) -> None:
    assert load_agreement(str(folder)).revision == load_agreement(str(folder)).revision
    assert str(folder) in load_agreement(str(folder)).revision


def test_pickles_and_models_of_text_alone_are_refused(folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((folder / "config.json").read_text())
    torch.save(CLIPModel.from_pretrained(folder).state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(VariantLoadError, match="pickle"):
        load_agreement(str(pickled))
    text: CLIPTextModel = clip_text_encoder()
    text.save_pretrained(tmp_path / "text")
    with pytest.raises(VariantLoadError, match="does not compare pictures with text"):
        load_agreement(str(tmp_path / "text"))
    with pytest.raises(VariantLoadError, match="no such folder"):
        load_agreement(str(tmp_path / "gone"))
