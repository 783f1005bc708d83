"""
Gather the pages of the site: ``python docs/assemble.py FOLDER`` copies them there, at the same places as here.

Pages link to each other as they do in the source tree, so that they can be read there, too; nothing is written twice.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/**/*.md", "docs/**/*.svg", "plugins/*/README.md", "bench/results/*.md", "LICENSE")


def main(folder: Path) -> None:
    """Fill ``folder``, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    for pattern in PATTERNS:
        for page in sorted(ROOT.glob(pattern)):
            target = folder / page.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
