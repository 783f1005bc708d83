"""What the kit asks of every source."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest

from nim_core.testing.conformance import Served, SourceSuite
from nim_core.testing.corpus import PatternContent
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.misbehaving import MisbehavingFiles

NAME = "größer & #1 + more.bin"
CONTENT = PatternContent(length=200_000)


class TestHttp(SourceSuite):
    plugin = "http"

    @pytest.fixture
    def served(self) -> Iterator[Served]:
        with HttpOrigin("files", MisbehavingFiles({f"/a b/{NAME}": CONTENT}), log=RequestLog()) as origin:
            yield Served(
                uri=f"http://someone:a-password@{urlsplit(origin.url).netloc}/a%20b/{quote(NAME)}",
                files={NAME: CONTENT},
                endpoints=(origin.url,),
                secrets=("a-password",),
                missing=f"{origin.url}/none",
            )
