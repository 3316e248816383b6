"""What mkdocs does to our pages: diagrams become pictures, links out of docs/ become paths.

Mermaid's own script would have to be loaded from another host; the diagrams are drawn when the site is built.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import mmdr

DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    number = 0

    def draw(match: re.Match[str]) -> str:
        nonlocal number
        number += 1
        # Several pictures of one page must not share ids.
        svg = mmdr.render(match[1]).svg().replace("merman", f"diagram-{number}")
        return f'<div class="diagram" role="img">{_one_line(svg)}</div>'

    folder = PurePosixPath(page.file.src_uri).parent
    return LINK.sub(lambda match: _link(match, folder), DIAGRAM.sub(draw, markdown))


def _one_line(svg: str) -> str:
    """Markdown ends a block of HTML at an empty line."""
    return re.sub(r"\s*\n\s*", " ", svg)


def _link(match: re.Match[str], folder: PurePosixPath) -> str:
    """A link to a file of the repository that is no page: its path stays to be read."""
    depth = len([part for part in folder.parts if part != "."])
    ups = len(re.findall(r"\.\./", match[2]))
    if ups <= depth:
        return match[0]
    path = match[2].replace("../", "")
    told = match[1].strip("`")
    return f"`{path}`" if told in (path, PurePosixPath(path).name) else f"{match[1]} (`{path}`)"
