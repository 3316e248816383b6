"""The documents as a site: pages that are made, diagrams, links, and nothing from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mmdr", reason="the docs extra is not installed")

from scripts import docs_hook, pages

ROOT = Path(__file__).resolve().parents[3]


def rendered(markdown: str, uri: str = "explanation/x.md") -> str:
    return docs_hook.on_page_markdown(markdown, page=SimpleNamespace(file=SimpleNamespace(src_uri=uri)))


def test_diagrams_are_drawn_without_a_script():
    text = rendered("a\n\n```mermaid\nflowchart LR\n  A[one] --> B[two]\n```\n\n```json\n{}\n```\n")
    assert "<svg" in text
    assert "mermaid" not in text.partition("<svg")[0]
    assert "<script" not in text
    assert "```json" in text
    assert "\n\n" not in text[text.index("<div") : text.index("</div>")]


def test_links_out_of_the_docs_are_paths():
    assert rendered("[gating.md](../../benchmarks/results/gating.md)") == "`benchmarks/results/gating.md`"
    assert rendered("[figures](../../benchmarks/a.md)") == "figures (`benchmarks/a.md`)"
    assert rendered("[a page](../learning.md)") == "[a page](../learning.md)"
    assert rendered("[NOTICE](../NOTICE) and [x](y.md)", "x.md") == "`NOTICE` and [x](y.md)"


def test_generated_pages_are_written_and_checked(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    wanted = {tmp_path / "a" / "b.md": "text"}
    monkeypatch.setattr(sys, "argv", ["x", "--check"])
    assert pages.main(wanted, None) == 1
    assert "a/b.md is out of date; run `make docs`" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["x", "--write"])
    assert pages.main(wanted, None) == 0
    monkeypatch.setattr(sys, "argv", ["x", "--check"])
    assert pages.main(wanted, None) == 0


@pytest.mark.slow
def test_the_site_loads_nothing_from_another_host(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    sites = list(tmp_path.rglob("*.html"))
    assert len(sites) > 20
    for page in sites:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"']?([^\"' >]+)", text)
        assert [url for url in loaded if re.match(r"(?:https?:)?//", url)] == [], page
        assert 'class="mermaid"' not in text  # for which the theme would fetch a script
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
