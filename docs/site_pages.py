"""Hook of ProperDocs: the site also has the pages that lie outside of `docs/`, and links between all of them hold.

In the repository a page is linked to where it lies, so that links work wherever the files are read. The site has
another layout; each link is rewritten for it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from properdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Where a page lies in the repository, and what it is called on the site.
OUTSIDE = {
    "README.md": "start.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "models/embedded/README.md": "embedded-model.md",
}
_ORIGIN = {site: repository for repository, site in OUTSIDE.items()}
_LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]+)(?P<anchor>#[^)]*)?\)")
_DOCS = "docs/"


def on_files(files: Files, config: Any) -> Files:
    for repository, site in OUTSIDE.items():
        files.append(File.generated(config, site, content=(ROOT / repository).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    return rewritten(markdown, page.file.src_uri)


def rewritten(markdown: str, site: str) -> str:
    """The text of the page `site` with its links as the site has them."""
    lies = posixpath.dirname(_ORIGIN.get(site) or _DOCS + site)

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(lies, found["path"]))
        if target == "docs":
            target = "docs/README.md"
        there = OUTSIDE.get(target) or target.removeprefix(_DOCS)
        if found["path"].endswith("/"):
            there = posixpath.join(there, "README.md") if not there.endswith(".md") else there
        return f"]({posixpath.relpath(there, posixpath.dirname(site) or '.')}{found['anchor'] or ''})"

    return _LINK.sub(link, markdown)
