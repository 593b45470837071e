"""`rushes verify` on files and runs: the table, the JSON, the exit code."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from actors.encoder import encode
from actors.provenance import open_provenance
from actors.publisher import Publisher
from actors.renderer import Rendered
from rushes.cli import app
from rushes.exits import Exit
from schemas.catalog import Variant
from schemas.clip import ClipFormat
from schemas.trust import CredentialsMode, TrustSettings
from storage import keys
from storage.ledger import Ledger
from storage.store import open_store
from tests.models.tiny_variants import group_of, task_of, tiny_variant
from tests.trust.authorities import identity
from tests.trust.pictures import png, signed_png
from trust.watermark import embed

RUN = CliRunner()
PROMPTS = ("a", "bb", "ccc")
OFF = TrustSettings(credentials=CredentialsMode.OFF)


@pytest.fixture(scope="module")
def variant() -> Variant:
    return tiny_variant("wan", Path("/weights"))


def rendered(out: Path, variant: Variant, trust: TrustSettings = TrustSettings(), served: bool = False) -> list[Path]:  # noqa: B008
    """The clips of a run, or of an endpoint."""
    store = open_store(str(out))
    provenance = open_provenance(trust, out.parent / "state")
    names = keys.TASK_NAMES if served else keys.BULK_NAMES
    publisher = Publisher(store, variant, "abc", provenance=provenance, names=names, now=lambda: NOW)
    group = group_of(variant)
    clips = []
    for prompt in PROMPTS:
        frames = np.random.default_rng(len(prompt)).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
        record = publisher.publish(Rendered(task_of(group, prompt, 7), group, frames, render_s=1.0))
        assert record.clip is not None
        if not served:
            Ledger(store).write(record)
        clips.append(Path(record.clip.uri.removeprefix("file://")))
    return clips


NOW = datetime(2026, 1, 2, tzinfo=UTC)


def told(target: Path, *options: str) -> tuple[int, dict[str, object]]:
    answer = RUN.invoke(app, ["verify", str(target), "--json", *options])
    assert answer.exit_code in (0, 1, 3), answer.output
    return answer.exit_code, json.loads(answer.stdout)


def test_a_run_whose_clips_are_as_they_were_signed_is_valid(tmp_path: Path, variant: Variant) -> None:
    rendered(tmp_path / "out", variant)
    code, found = told(tmp_path / "out")
    assert (code, found["verdict"], found["counts"]) == (Exit.OK, "valid", {"valid": 3})


def test_a_folder_that_was_copied_elsewhere_is_looked_at_where_it_is(tmp_path: Path, variant: Variant) -> None:
    rendered(tmp_path / "out", variant)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert told(tmp_path / "elsewhere")[1]["counts"] == {"valid": 3}


def test_clips_that_were_changed_taken_away_or_exchanged_are_told_of(tmp_path: Path, variant: Variant) -> None:
    changed, gone, exchanged = rendered(tmp_path / "out", variant)
    data = bytearray(changed.read_bytes())
    data[data.index(b"mdat") + 40] ^= 1
    changed.write_bytes(data)
    other = rendered(tmp_path / "other", variant, TrustSettings())[0]
    exchanged.write_bytes(other.read_bytes())
    gone.unlink()
    code, found = told(tmp_path / "out")
    assert (code, found["verdict"], found["counts"]) == (Exit.BROKE, "missing", {"missing": 1, "changed": 2})
    reasons = str(found["files"])
    assert "hash" in reasons
    assert "its SHA-256 is" in reasons


def test_a_run_without_credentials_has_an_exit_code_of_its_own(tmp_path: Path, variant: Variant) -> None:
    rendered(tmp_path / "out", variant, OFF)
    code, found = told(tmp_path / "out")
    assert (code, found["counts"]) == (Exit.INCOMPLETE, {"unsigned": 3})


def test_the_clips_of_an_endpoint_are_looked_at(tmp_path: Path, variant: Variant) -> None:
    rendered(tmp_path / "out", variant, served=True)
    assert told(tmp_path / "out")[1]["counts"] == {"valid": 3}


def test_a_file_is_described_in_a_table_that_fits_a_terminal(tmp_path: Path, variant: Variant) -> None:
    clip = rendered(tmp_path / "out", variant)[0]
    answer = RUN.invoke(app, ["verify", str(clip)])
    assert answer.exit_code == Exit.OK
    lines = answer.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for part in ("verdict valid", "certificate for development", "made by Rushes", "made by a model yes", "tiny-wan"):
        assert part in text


def test_a_run_is_described_in_a_table_that_fits_a_terminal(tmp_path: Path, variant: Variant) -> None:
    clips = rendered(tmp_path / "out", variant)
    clips[0].write_bytes(clips[1].read_bytes())
    answer = RUN.invoke(app, ["verify", str(tmp_path / "out")])
    assert answer.exit_code == Exit.BROKE
    assert max(map(len, answer.stdout.splitlines())) <= 80
    assert "1 changed, 2 valid" in answer.stdout


def test_a_file_of_a_third_party_is_trusted_when_its_authority_is_given(tmp_path: Path) -> None:
    agency = identity("Agency")
    (tmp_path / "photo.png").write_bytes(signed_png(agency))
    (tmp_path / "root.pem").write_text(agency.root)
    assert told(tmp_path / "photo.png")[1]["verdict"] == "valid"
    code, found = told(tmp_path / "photo.png", "--trust-anchors", str(tmp_path / "root.pem"))
    assert (code, found["verdict"]) == (Exit.OK, "trusted")
    (tmp_path / "plain.png").write_bytes(png())
    assert told(tmp_path / "plain.png")[0] == Exit.INCOMPLETE


def test_a_mark_is_found_in_a_file_whose_credentials_were_taken_away(tmp_path: Path) -> None:
    ramp = np.linspace(20, 220, 256, dtype=np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (4, 192, 256, 3)).copy()
    payload = bytes.fromhex("0123456789abcdef")
    encode(embed(frames, payload), 8, ClipFormat.MP4, tmp_path / "stripped.mp4")
    code, found = told(tmp_path / "stripped.mp4")
    assert (code, found["verdict"]) == (Exit.INCOMPLETE, "unsigned")
    assert payload.hex() in str(found["files"])
    assert payload.hex() in RUN.invoke(app, ["verify", str(tmp_path / "stripped.mp4")]).stdout
    assert "watermark" not in str(told(tmp_path / "stripped.mp4", "--no-watermark")[1])
    encode(frames, 8, ClipFormat.MP4, tmp_path / "never.mp4")
    assert "watermark" not in str(told(tmp_path / "never.mp4")[1])
    (tmp_path / "notes.txt").write_text("no picture")
    assert told(tmp_path / "notes.txt")[0] == Exit.INCOMPLETE


@pytest.mark.parametrize("target", ["none.mp4", "."])
def test_what_is_neither_a_file_nor_a_run_is_a_usage_error(tmp_path: Path, target: str) -> None:
    answer = RUN.invoke(app, ["verify", str(tmp_path / target)])
    assert answer.exit_code == Exit.USAGE
    assert str(tmp_path) in answer.stderr.replace("\n", "")


def test_anchors_that_are_not_there_are_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(png())
    answer = RUN.invoke(app, ["verify", str(tmp_path / "plain.png"), "--trust-anchors", str(tmp_path / "no.pem")])
    assert answer.exit_code == Exit.USAGE
    assert "no.pem" in answer.stderr.replace("\n", "")
