"""The reference pages are what the code says."""

import re
from pathlib import Path
from typing import Annotated

import pytest
import typer
from pydantic import BaseModel, Field

from rushes import reference
from tests.test_architecture import MAY_IMPORT

ROOT = Path(__file__).resolve().parents[2]
ROOMS = tuple(room for room in MAY_IMPORT if room != "benchmarks")


@pytest.mark.parametrize("name", reference.pages())
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert (reference.DOCS / name).read_text() == reference.pages()[name], "write it: python -m rushes.reference"


def test_every_variable_that_the_code_reads_is_in_the_reference() -> None:
    found = {
        variable
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for variable in re.findall(r"RUSHES_[A-Z0-9_]*[A-Z0-9]", path.read_text())
    }
    assert found == set(re.findall(r"^\| `(RUSHES_\w+)`", reference.settings_page(), re.MULTILINE))


def test_a_number_without_a_unit_is_not_written() -> None:
    assert reference.unit_of("timeout_s", float | None) == "s"
    assert reference.unit_of("quality", float) == "–"
    assert reference.unit_of("name", str) == "–"
    with pytest.raises(ValueError, match="height: say its unit"):
        reference.unit_of("height", int)


def test_a_field_without_a_meaning_is_not_written() -> None:
    class Silent(BaseModel):
        """One."""

        said: str = Field(default="", description="something")
        unsaid: str = ""

    with pytest.raises(ValueError, match="unsaid: no description"):
        list(reference._sections({"silent": Silent}))


def test_an_option_without_a_meaning_is_not_written() -> None:
    def silent(said: Annotated[str, typer.Option("--said", help="something")], unsaid: bool = False) -> None:
        """Do nothing."""

    app = typer.Typer(add_completion=False)
    app.command()(silent)
    with pytest.raises(ValueError, match="unsaid: no help"):
        list(reference._command("silent", typer.main.get_command(app)))
