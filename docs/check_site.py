"""Fail when a page of the built site loads anything from another host: ``python docs/check_site.py FOLDER``."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path


class Loads(HTMLParser):
    """The addresses that a page loads without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get("src") or (given.get("href") if tag == "link" else None) or ""
        if address.startswith(("http:", "https:", "//")) and given.get("rel") != "canonical":
            self.found.append(address)


def main(folder: Path) -> int:
    """Return how many pages do."""
    guilty = 0
    pages = sorted(folder.rglob("*.html"))
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        if loads.found:
            guilty += 1
            print(f"{page}: loads {', '.join(loads.found)}", file=sys.stderr)
    print(f"{len(pages)} pages, {guilty} of them load something from elsewhere")
    return guilty or not pages


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
