"""
The fixtures of the kit; ``pytest_plugins = ["nim_core.testing"]`` brings them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nim_core.testing.certificates import Certificates, make_certificates
from nim_core.testing.corpus import Corpus, sample_corpus
from nim_core.testing.gcs_server import GcsEmulator, GcsServer
from nim_core.testing.google_auth import GoogleAuth
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer
from nim_core.testing.modelscope_models import ModelScopeModel
from nim_core.testing.modelscope_server import ModelScopeServer
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """The sample model, the same in every run."""
    return sample_corpus()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A private authority and a server certificate."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def ngc_server(corpus: Corpus) -> Iterator[NgcServer]:
    """A stand-in for NGC with the sample model; fails the test when a credential reached its storage."""
    with NgcServer([NgcModel(files=corpus.files)], page_size=5) as server:
        yield server
    assert server.storage.leaks == []


@pytest.fixture
def hub_server(corpus: Corpus) -> Iterator[HubServer]:
    """A stand-in for the Hugging Face Hub with the sample model; fails the test when its storage got a credential."""
    with HubServer([HubModel(files=corpus.files)], page_size=4) as server:
        yield server
    assert server.storage.leaks == []


@pytest.fixture
def modelscope_server(corpus: Corpus) -> Iterator[ModelScopeServer]:
    """A stand-in for ModelScope with the sample model; fails the test when a credential reached its storage."""
    with ModelScopeServer([ModelScopeModel(files=corpus.files)]) as server:
        yield server
    assert server.storage.leaks == []


@pytest.fixture
def google_auth() -> Iterator[GoogleAuth]:
    """Google's token services and metadata server."""
    with GoogleAuth() as auth:
        yield auth


@pytest.fixture
def gcs_server(google_auth: GoogleAuth) -> Iterator[GcsServer]:
    """Google Cloud Storage without any bucket, which lets in who has a token of ``google_auth``."""
    with GcsServer(auth=google_auth) as server:
        yield server


@pytest.fixture
def gcs_emulator(google_auth: GoogleAuth) -> Iterator[GcsEmulator]:
    """The same by another program, which is right about resumable uploads."""
    with GcsEmulator(auth=google_auth) as server:
        yield server
