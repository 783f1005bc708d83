from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "plugins/*/README.md",
        "examples/*/README.md",
        "bench/**/*.md",
        "template/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    """Return ``text`` without code, in which brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^```.*?^```", "", text))


def anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of ``page`` make."""
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(root: Path, page: Path) -> list[str]:
    """Return the links of ``page`` to files or headings of this tree that are not there."""
    broken = []
    for link in LINK.findall(without_code((root / page).read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (root / page).parent / target if target else root / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(ROOT, page) == []


def test_a_broken_link_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# One two\n[x](b.md) [y](#one-two) [z](#three) [w](c.md) `[v](d.md)`", encoding="utf-8"
    )
    (tmp_path / "b.md").write_text("", encoding="utf-8")
    assert broken_links(tmp_path, Path("a.md")) == ["#three", "c.md"]


def test_every_page_of_docs_is_in_the_index() -> None:
    indices = [ROOT / "docs" / "README.md", ROOT / "docs" / "reference" / "hooks.md"]
    linked = {
        (index.parent / link.partition("#")[0]).resolve()
        for index in indices
        for link in LINK.findall(index.read_text(encoding="utf-8"))
    }
    missing = [page for page in PAGES if page.parts[0] == "docs" and (ROOT / page).resolve() not in {*linked, *indices}]
    assert missing == []
