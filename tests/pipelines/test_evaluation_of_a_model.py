"""What a model does worse is found in the clips that it renders."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.topology import Topology
from pipelines.run import render
from schemas.run import RunOptions
from tests.pipelines.test_evaluation import evaluated, values
from training.captions import plain_caption
from training.drawing import combinations


def prompts() -> Iterator[dict[str, object]]:
    """The same prompts twice: with a colour that the model was taught, and with one whose word it never read."""
    for k, (_, shape, motion) in enumerate(combinations(held=False)[::29][:12]):
        for word, colour in {"taught": "red", "never taught": "lime"}.items():
            prompt = plain_caption(colour, shape, motion, "white")
            yield {"prompt": prompt, "variant": "shapes-turbo", "seed": k, "word": word, "template": k}


@pytest.mark.ray
def test_of_rendered_clips_the_group_that_the_model_does_worse_on_is_named(
    tmp_path: Path, ray_cluster: Topology
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in prompts()))
    out = str(tmp_path / "out")
    assert render(RunOptions(manifest=str(manifest), out=out)).succeeded == 24
    for found in (evaluated(out, "word"), evaluated(out, "word", paired_by="template")):
        assert any(warning.startswith("word = never taught: colour_obeyed is ") for warning in found.warnings)
        assert not any("word = taught" in warning and "obeyed" in warning for warning in found.warnings)
        assert values(found, "colour_obeyed")["taught"] > 0.8
        assert values(found, "succeeded") == {"never taught": 1.0, "taught": 1.0}
