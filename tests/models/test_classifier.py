"""Real classifiers of transformers, tiny ones: what they score, and what is not loaded."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.classifier import ClassifierSource, FrameClassifier, TextClassifier
from schemas.errors import VariantLoadError
from tests.models.tiny_classifiers import save_frame_classifier, save_text_classifier

HARMLESS = ("safe", "normal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classifiers")
    save_frame_classifier(root / "frames")
    save_text_classifier(root / "text")
    return root


def source(folder: Path, **more: object) -> ClassifierSource:
    return ClassifierSource(str(folder), **{"harmless": HARMLESS, **more})


def solid(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full((24, 40, 3), colour, np.uint8) for colour in colours])


def test_pictures_are_scored_one_by_one(folder: Path) -> None:
    classifier = FrameClassifier(source(folder / "frames"))
    assert classifier.categories == ("red",), "in lower case, and without the harmless one"
    found = classifier.score_frames(solid((255, 0, 0), (255, 255, 255), (0, 0, 0), (0, 0, 255)))
    assert [one["red"] > 0.99 for one in found] == [True, False, False, False]
    assert classifier.score_frames(solid((255, 0, 0))[:0]) == []


def test_more_pictures_than_a_call_takes_come_back_in_order(folder: Path) -> None:
    frames = solid(*[(255, 0, 0) if index == 40 else (0, 0, 0) for index in range(50)])
    found = [one["red"] > 0.5 for one in FrameClassifier(source(folder / "frames")).score_frames(frames)]
    assert [index for index, red in enumerate(found) if red] == [40]


def test_a_prompt_is_read_to_its_end_however_long_it_is(folder: Path) -> None:
    classifier = TextClassifier(source(folder / "text"))
    prompts = ["a vile thing", "a nice thing", "word " * 99 + "vile", "", "vile " + "word " * 99, "word " * 99]
    assert [one["hate"] > 0.9 for one in classifier.score_text(prompts)] == [True, False, True, False, True, False]
    assert classifier.score_text([]) == []


def test_several_labels_may_hold_at_once_where_the_model_says_so(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "text", tmp_path / "many")
    config = (tmp_path / "many" / "config.json").read_text()
    config = config.replace('"safe"', '"insult"').replace("{", '{"problem_type": "multi_label_classification",', 1)
    (tmp_path / "many" / "config.json").write_text(config)
    (scores,) = TextClassifier(source(tmp_path / "many")).score_text(["vile"])
    assert scores["hate"] > 0.9
    assert scores["insult"] == 0.5, "they need not add up to one"


def test_what_cannot_be_a_classifier_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VariantLoadError, match=r"classifier /no/such: .*no such folder"):
        TextClassifier(source(Path("/no/such")))
    save_text_classifier(tmp_path / "unnamed", ("LABEL_0", "LABEL_1"))
    with pytest.raises(VariantLoadError, match="its labels have no names"):
        TextClassifier(source(tmp_path / "unnamed"))
    with pytest.raises(VariantLoadError, match="all of its labels are harmless: safe, hate"):
        TextClassifier(source(folder / "text", harmless=("safe", "hate")))
    if not torch.cuda.is_available():
        with pytest.raises(VariantLoadError, match="device 'cuda': no CUDA device; available: cpu"):
            TextClassifier(source(folder / "text", device="cuda"))


def test_neither_pickles_nor_code_are_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "text", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(VariantLoadError, match=r"pytorch_model.bin is a pickle"):
        TextClassifier(source(tmp_path / "pickled"))
    shutil.copytree(folder / "text", tmp_path / "coded")
    (tmp_path / "coded" / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(VariantLoadError, match=r"modeling.py is code"):
        TextClassifier(source(tmp_path / "coded"))
