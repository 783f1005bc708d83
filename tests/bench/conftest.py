"""The benchmarks are scripts, not a package that is installed: their folder is put on the path."""

from __future__ import annotations

import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
if BENCH.is_dir():
    sys.path.insert(0, str(BENCH))
else:  # a source distribution has no benchmarks
    collect_ignore_glob = ["test_*.py"]
