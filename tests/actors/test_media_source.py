"""Where media of a bulk run may come from."""

import base64
from pathlib import Path

import pytest

from actors.media_source import MediaSource
from schemas.config import read_config
from schemas.errors import MediaError

DATA = "data:image/png;base64," + base64.b64encode(b"pixels").decode()


def test_without_a_rule_files_and_data_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"pixels")
    source = MediaSource(read_config({}))
    assert source(str(path)) == source(path.as_uri()) == source(DATA) == b"pixels"


@pytest.mark.parametrize(
    "uri", ["a.png", "file:///a.png", "s3://bucket/a.png", "https://example.com/a.png", "FILE:///a"]
)
def test_a_run_of_a_stranger_reads_only_what_its_rows_bring_along(uri: str) -> None:
    source = MediaSource(read_config({"RUSHES_MEDIA_SCHEMES": "data"}))
    assert source(DATA) == b"pixels"
    with pytest.raises(MediaError, match="may only be given as data"):
        source(uri)
