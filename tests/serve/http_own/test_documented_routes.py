"""Routes that the documentation names are there."""

import re
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
NAMED = re.compile(r"`(GET|POST|PATCH|DELETE) (/[\w/{}.-]*[\w}])")


def test_routes_that_pages_name_are_there(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {plain(path)}" for path, methods in document.items() for method in methods}
    routes.add("GET /v1/events")  # left out of the document on purpose
    routes.add("GET /outputs/{}")
    named = {f"{method} {plain(path)}": page.name for page in PAGES for method, path in NAMED.findall(page.read_text())}
    assert len(named) > 10
    assert not {name: page for name, page in named.items() if name not in routes}


def plain(path: str) -> str:
    """Whatever its parameters are called."""
    return re.sub(r"\{[^}]*\}", "{}", path)
