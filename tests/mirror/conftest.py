from __future__ import annotations

import pytest

from tests.mirror.shelf import Mirror, Shelf


@pytest.fixture(params=[False, True], ids=["any-order", "ordered"])
def mirror(tmp_path, request):
    return Mirror(tmp_path, Shelf(ordered=request.param))
