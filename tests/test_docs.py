"""Decision records have a date and a status and are in the index; what the documentation names exists: files, links,
commands with their options, error texts; the site can be built."""

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import rushes
from pipelines.rows import FIELDS
from rushes.cli import app
from schemas.catalog import parse_catalog
from tests.pipelines.catalogs import TWO_VARIANTS

ROOT = Path(__file__).resolve().parent.parent
DECISIONS = ROOT / "docs" / "decisions"
RECORDS = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
HEAD = re.compile(r"# (?P<number>\d{4})\. (?P<title>.+)\n\nDate: (?P<date>\S+)\n\nStatus: (?P<status>.+)\n\n\S")
STATUS = re.compile(r"proposed|accepted|superseded by (?P<by>\d{4})")
ROW = re.compile(r"^\| (\d{4}) \| \[(.+)\]\((.+)\) \| (\S+) \| (.+) \|$", re.MULTILINE)


def head_of(path: Path) -> dict[str, str]:
    found = HEAD.match(path.read_text())
    assert found, f"{path.name} does not begin with '# NNNN. Title', 'Date: YYYY-MM-DD' and 'Status: ...'"
    return found.groupdict()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_a_record_has_its_number_a_date_and_a_status(path: Path) -> None:
    head = head_of(path)
    assert path.name.startswith(f"{head['number']}-")
    date.fromisoformat(head["date"])
    status = STATUS.fullmatch(head["status"])
    assert status, f"{path.name}: status {head['status']!r}; choices: proposed, accepted, superseded by NNNN"
    if by := status["by"]:
        assert by != head["number"]
        assert list(DECISIONS.glob(f"{by}-*.md")), f"{path.name} is superseded by {by}, which does not exist"


def test_no_two_records_share_a_number() -> None:
    numbers = [path.name[:4] for path in RECORDS]
    assert len(numbers) == len(set(numbers))


def test_the_index_lists_every_record_as_it_is() -> None:
    listed = ROW.findall((DECISIONS / "README.md").read_text())
    heads = [(path, head_of(path)) for path in RECORDS]
    assert listed == [(head["number"], head["title"], path.name, head["date"], head["status"]) for path, head in heads]


OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "models/embedded/README.md")]
PAGES = sorted([*OUTSIDE, *(ROOT / "docs").rglob("*.md")])
ROOMS = (
    "schemas|storage|models|training|cluster|trust|evaluation|actors|pipelines|serve|rushes"
    "|benchmarks|tests|docs|deploy|examples"
)
# A path from the root, but not the end of a longer one (`out/serve/…`), of an address or of a placeholder.
PATH = re.compile(rf"(?<![\w./<>-])(?:{ROOMS})/[\w./-]*")
MODULE = re.compile(rf"-m ((?:{ROOMS})(?:\.\w+)*)")


def named_in(text: str) -> set[str]:
    """Files, folders and modules of this repository that a page names, as paths from its root."""
    paths = {found.rstrip("./") for found in PATH.findall(text)}
    return paths | {found.replace(".", "/") for found in MODULE.findall(text)}


def is_there(path: str) -> bool:
    return (ROOT / path).exists() or (ROOT / f"{path}.py").is_file()


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_is_there(page: Path) -> None:
    absent = sorted(path for path in named_in(page.read_text()) if not is_there(path))
    assert not absent, f"{page.relative_to(ROOT)} names what does not exist: {absent}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_links_to_pages_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    absent = sorted(link for link in links if not (page.parent / link).exists())
    assert not absent, f"{page.relative_to(ROOT)} links to what does not exist: {absent}"


def test_a_name_that_is_gone_is_seen() -> None:
    text = "`serve/dispatch/broker.py`, `python -m benchmarks.gone`, [x](models/embedded/README.md), out/serve/tasks.db"
    assert named_in(text) == {"serve/dispatch/broker.py", "benchmarks/gone", "models/embedded/README.md"}
    assert [is_there(path) for path in sorted(named_in(text))] == [False, True, False]


FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
SHELL = frozenset({"", "sh", "bash", "shell", "console"})
# What may stand before a command: variables of its own, and the environment's folder.
BEFORE = re.compile(r"^(?:\w+=\S* +)*(?:\.venv/bin/)?")
INSIDE = re.compile(r"\$\((?:\.venv/bin/)?(rushes [^)]*)\)")
INLINE = re.compile(r"`(rushes [^`]+)`")


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of every `rushes …` line in the code blocks of a page."""
    for fence in FENCE.finditer(text):
        if fence["language"] not in SHELL:
            continue
        for line in fence["body"].replace("\\\n", " ").splitlines():
            inside = INSIDE.findall(line)
            for command in (BEFORE.sub("", INSIDE.sub("VALUE", line).strip()), *inside):
                if command.startswith("rushes "):
                    yield shlex.split(command, comments=True)[1:]


def parsed(words: list[str]) -> None:
    """What the command line makes of the words, without doing it. Raises its usage error."""
    command, context = typer.main.get_command(app), None
    while True:
        context = command.make_context(command.name, list(words), parent=context)
        left = [*getattr(context, "_protected_args", ()), *context.args]
        if not left or not hasattr(command, "resolve_command"):
            return
        _, command, words = command.resolve_command(context, left)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_a_page_are_real(page: Path) -> None:
    wrong: dict[str, str] = {}
    for words in commands_in(page.read_text()):
        try:
            parsed(words)
        except typer.Exit:
            pass  # --help, --version
        except Exception as error:
            wrong[shlex.join(words)] = getattr(error, "message", "") or str(error)
    assert not wrong, f"{name_of(page)} has commands that are none: {wrong}"


def options_of(words: list[str]) -> set[str]:
    """The options of the command that the words begin with. KeyError, naming the word, where there is none."""
    command: Any = typer.main.get_command(app)
    context = command.make_context(command.name, [], resilient_parsing=True)
    options = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("-") or not hasattr(command, "list_commands"):
            break
        found = command.get_command(context, word)
        if found is None:
            raise KeyError(word)
        command = found
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return options


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_a_line_of_a_page_are_real(page: Path) -> None:
    for found in INLINE.findall(FENCE.sub("", page.read_text())):
        words = shlex.split(found.partition("|")[0])[1:]
        absent = [word for word in words if word.startswith("--") and word not in options_of(words)]
        assert not absent, f"{name_of(page)}: `{found}`: no such option {absent}"


def test_a_command_that_is_none_is_seen() -> None:
    text = "```\nA=b .venv/bin/rushes keys list --out $(rushes catalog --gone)  # all\nrushes keys \\\n  revoke\n```"
    assert list(commands_in(text)) == [["keys", "list", "--out", "VALUE"], ["catalog", "--gone"], ["keys", "revoke"]]
    for words in (["catalog", "--gone"], ["keys", "revoke"], ["gone"], ["estimate", "x.jsonl", "--limit", "many"]):
        with pytest.raises(Exception, match=r"[Nn]o such|[Mm]issing|valid integer"):
            parsed(words)
    parsed(["keys", "revoke", "key_1"])
    with pytest.raises(KeyError, match="gone"):
        options_of(["keys", "gone"])


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_what_a_page_has_make_do_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    blocks = "\n".join(fence["body"] for fence in FENCE.finditer(text))
    asked = set(re.findall(r"`make ([\w-]+)", text)) | set(re.findall(r"^make ([\w-]+)", blocks, re.MULTILINE))
    assert asked <= targets, f"{name_of(page)}: no such target: {sorted(asked - targets)}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    listed = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#:]+)\)", index)}
    wanted = {page for page in PAGES if DECISIONS not in page.parents} - {ROOT / "docs" / "README.md"}
    assert not wanted - listed


def test_every_benchmark_is_listed_with_options_that_it_has() -> None:
    benchmarks = {p.stem: p.read_text() for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text()}
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    listed = dict(re.findall(r"`python -m benchmarks\.(\w+)([^`]*)`", page))
    assert listed.keys() == benchmarks.keys()
    for name, words in listed.items():
        absent = [word for word in words.split() if word.startswith("--") and f'"{word}"' not in benchmarks[name]]
        assert not absent, f"benchmarks.{name} has no option {absent}"


def test_the_first_page_lists_every_field_of_a_manifest() -> None:
    table = (ROOT / "README.md").read_text().partition("| field | meaning |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == FIELDS


def test_tables_of_the_first_page_fit_a_terminal() -> None:
    tables = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    assert not [line for line in tables if len(line) > 80]


ERRORS = ROOT / "docs" / "troubleshooting.md"
SOURCES = [path for room in ROOMS.split("|")[:11] for path in (ROOT / room).rglob("*.py")]
# The words of libraries and of the system.
FOREIGN = {"GatedRepoError", "401 Client Error", "No space left on device", "Read-only file system"}


@cache
def said_by_the_code() -> str:
    """Every text of the code, a line each, with `…` where a value is put in."""
    texts: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(map(str, parts)).replace("\n", " "))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value.replace("\n", " "))
    return "\n".join(texts)


def is_said(text: str) -> bool:
    return re.search(".*".join(map(re.escape, text.split("…"))), said_by_the_code()) is not None


def test_every_error_text_is_in_the_code() -> None:
    headings = re.findall(r"^### (.+)$", ERRORS.read_text(), re.MULTILINE)
    texts = [text for heading in headings for text in re.findall(r"`([^`]+)`", heading)]
    assert len(texts) > 30
    assert not [text for text in texts if text not in FOREIGN and not is_said(text)]
    assert not is_said("unknown variant …; avaliable: …")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_reads_the_same_in_the_repository_and_on_the_site(page: Path) -> None:
    """What GitHub takes and Python-Markdown does not: code blocks within lists, lists right behind a paragraph."""
    text = page.read_text()
    assert not [fence["body"] for fence in FENCE.finditer(text) if fence["indent"]]
    prose = FENCE.sub("", text)
    assert not re.findall(r"^[^\s#|\-\d].*\n(?:- |1\. ).*", prose, re.MULTILINE)


_OF_A_CATALOG = re.compile(r"^\[(variants|extractors)\.", re.MULTILINE)


def test_catalogs_that_pages_show_are_catalogs() -> None:
    shown = [
        (page, fence["body"])
        for page in PAGES
        for fence in FENCE.finditer(page.read_text())
        if fence["language"] == "toml" and _OF_A_CATALOG.search(fence["body"])
    ]
    assert shown
    for page, body in shown:
        # Who finds structures may be shown alone.
        parse_catalog(body if "[variants." in body else TWO_VARIANTS + body, name_of(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_programs_and_messages_that_a_page_shows_can_be_read(page: Path) -> None:
    readers = {"python": ast.parse, "json": json.loads, "toml": tomllib.loads}
    for fence in FENCE.finditer(page.read_text()):
        if reader := readers.get(fence["language"]):
            reader(fence["body"])
        if fence["language"] == "python":
            assert set(re.findall(r"\brushes\.(\w+)", fence["body"])) <= set(rushes.__all__)


def test_endpoints_that_pages_show_are_endpoints(tmp_path: Path) -> None:
    from serve.config import read_serve_config

    for page in PAGES:
        for number, fence in enumerate(FENCE.finditer(page.read_text())):
            other = _OF_A_CATALOG.search(fence["body"]) or page.name == "prompts.md"  # catalogs, templates
            if fence["language"] == "toml" and not other:
                file = tmp_path / f"{page.stem}-{number}.toml"
                file.write_text(fence["body"])
                read_serve_config(file)


def test_templates_that_pages_show_are_templates(tmp_path: Path) -> None:
    from prompts.templates import read_templates

    page = ROOT / "docs" / "prompts.md"
    shown = [fence["body"] for fence in FENCE.finditer(page.read_text()) if fence["language"] == "toml"]
    assert shown
    for body in shown:
        (tmp_path / "mine.toml").write_text(body)
        (own,) = set(tomllib.loads(body))
        assert read_templates(tmp_path / "mine.toml").filled(own, {"dish": "ramen"}).prompt


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors and the table of contents: of all pages together, as `make docs` has them."""
    if importlib.util.find_spec("properdocs") is None:
        pytest.skip("no properdocs: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "properdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "start.html").is_file()
