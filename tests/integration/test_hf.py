"""``download-to-cache`` from the Hub through a real proxy; the rest is tested in the plugin."""

from __future__ import annotations

import pytest

from nim_core.testing.corpus import Corpus, sample_corpus
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HUB_TOKEN, HubServer
from nim_core.testing.squid import USERINFO, squid

pytest_plugins = ["nim_core.testing"]


@pytest.fixture
def model():
    """A model with a shard that is fetched in parts."""
    return HubModel(files=sample_corpus(shard_size=40_000_000).files)


@pytest.mark.parametrize("auth", [False, True], ids=["open proxy", "proxy with password"])
def test_through_a_proxy_and_a_private_authority_and_no_way_around(machine, certificates, sockets, model, auth):
    with HubServer([model], certificates=certificates) as server, squid(auth=auth) as proxy:
        through = {
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": HUB_TOKEN,
            "HTTPS_PROXY": f"http://{USERINFO if auth else ''}{proxy.host_port}",
            "SSL_CERT_FILE": str(certificates.ca),
        }
        machine.run("--model-uri", model.uri(), env=through, within=sockets.within).check()
        for url in (server.url, server.storage_url):
            assert proxy.saw(f"CONNECT {url.partition('://')[2]}")
        assert sockets.ports == {int(proxy.host_port.rpartition(":")[2])}
    snapshot = next((machine.cache.path / "huggingface/hub").glob("models--*/snapshots/*"))
    assert Corpus(files=model.files).differences(snapshot) == []
    assert server.storage.leaks == []


def test_no_proxy_names_who_is_asked_directly(machine, model):
    with HubServer([model]) as server, squid() as proxy:
        direct = {"HF_ENDPOINT": server.url, "HTTP_PROXY": f"http://{proxy.host_port}", "NO_PROXY": "127.0.0.1"}
        machine.run("--model-uri", model.uri(), env=direct).check()
        assert len(server.log) > 0
        assert not proxy.saw("http://")


def test_an_authority_that_is_not_trusted_is_an_error(machine, certificates, model):
    with HubServer([model], certificates=certificates) as server:
        ended = machine.run("--model-uri", model.uri(), env={"HF_ENDPOINT": server.url})
        assert ended.code != 0
        assert "SSL_CERT_FILE" in ended.stderr
        assert len(server.log) == 0
