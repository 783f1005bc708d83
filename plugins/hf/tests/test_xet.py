"""A file that only Xet storage serves, through core's engine: refused over HTTP, streamed, checked, published."""

from __future__ import annotations

from functools import partial

import pytest
from attrs import evolve

from nim_core.errors import DigestMismatchError
from nim_core.settings import Settings
from nim_core.testing.corpus import sample_corpus, with_flipped_byte
from nim_core.testing.harness import repository_uri
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer
from nim_core.transfer.engine import Engine
from nim_core.transfer.jobs import Job
from nim_core.transfer.network import network_config
from nim_core.transfer.options import EngineOptions
from nim_core.types import RemoteFile

URI = repository_uri("hf://acme/sample-llm")
LARGE = "model-00001-of-00002.safetensors"


def fetch(source, file, folder):
    """Have the engine fetch one file; return the bytes it publishes."""
    published = []
    job = Job(id="0" * 32, identity=evolve(URI, file=file.path), file=file, locate=partial(source.locate, URI, file))
    engine = Engine(
        options=EngineOptions(backoff=0.0),
        network=network_config(Settings({})),
        folder=folder,
        publish=lambda batch: published.extend(one.path.read_bytes() for one in batch),
        emit=lambda event: None,
    )
    engine.run([job])
    [data] = published
    return data


@pytest.mark.parametrize("wrong", [False, True], ids=["right content", "wrong content"])
@pytest.mark.parametrize("size", [300_000, 3_000_000], ids=["small", "with a partial"])
def test_it_is_streamed_and_checked(open_source, tmp_path, size, wrong):
    content = sample_corpus(shard_size=size, seed=size + wrong).files[LARGE]  # its client remembers what it has seen
    served = with_flipped_byte(content, 1000) if wrong else content
    with HubServer([HubModel(files={LARGE: served}, xet_only=frozenset({LARGE}))]) as server:
        source = open_source(server.environment(), hub=server.url)
        file = RemoteFile(path=LARGE, size=size, digests=(content.digest("sha256"),))
        if wrong:
            with pytest.raises(DigestMismatchError, match="wrong content"):
                fetch(source, file, tmp_path)
        else:
            assert fetch(source, file, tmp_path) == content.data()
        assert server.log.count(route="storage", status=400) > 0
        assert server.log.count(origin="xet", route="xorb") > 0
        assert server.storage.leaks == []
