"""`rushes import-hotshot`: what it prints, and how it ends."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rushes.cli import app
from rushes.exits import Exit
from tests.models.hotshot_original import checkpoint, original

RUN = CliRunner()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("hotshot") / "ckpt", original())


def test_a_checkpoint_becomes_a_folder_that_is_named_on_stdout(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = RUN.invoke(app, ["import-hotshot", str(source), "--out", str(out)])
    assert told.exit_code == Exit.OK, told.stderr
    assert told.stdout == f"{out}\n"
    assert told.stderr == "6 temporal layers, clips of up to 24 frames\n"
    assert (out / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    again = RUN.invoke(app, ["import-hotshot", str(source), "--out", str(out)])
    assert again.exit_code == Exit.USAGE
    assert "available: --overwrite, another folder" in again.stderr
    assert RUN.invoke(app, ["import-hotshot", str(source), "--out", str(out), "--overwrite"]).exit_code == Exit.OK


def test_what_is_wrong_is_told_in_one_line_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for folder, said in ((tmp_path / "empty", "it has no unet/config.json"), (tmp_path / "gone", "is no folder")):
        told = RUN.invoke(app, ["import-hotshot", str(folder), "--out", str(out / "x")])
        assert told.exit_code == Exit.USAGE
        assert said in told.stderr
    converted = tmp_path / "converted"
    RUN.invoke(app, ["import-hotshot", str(source), "--out", str(converted)])
    told = RUN.invoke(app, ["import-hotshot", str(converted), "--out", str(out)])
    assert told.exit_code == Exit.USAGE
    assert "is converted already" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert not out.exists()
