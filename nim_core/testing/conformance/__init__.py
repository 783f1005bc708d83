"""
The kit's levels: what every plugin owes its users, as test classes to inherit from.

A plugin's author writes one class per thing the plugin brings, with what only the author can know: a server that has
the corpus, or a machine that has the engine. The tests come with the suite::

    from nim_core.testing.conformance import Served, SourceSuite

    class TestAcme(SourceSuite):
        plugin = "acme"

        @pytest.fixture
        def served(self, corpus):
            with AcmeServer(corpus.files) as server:
                yield Served(uri="acme://team/model:1", files=corpus.files, environment={"ACME_URL": server.url})

The plugin is found as core finds it, by its entry point, so it has to be installed (``pip install -e .`` will do).
Capabilities choose the tests: one that needs what the plugin does not declare is skipped, and the summary says so. A
test can be set aside, with a reason, in ``set_aside``; it cannot be overridden or removed.
"""

from nim_core.testing.conformance.backend import BackendSuite, ServedModel
from nim_core.testing.conformance.credential import CredentialCase, CredentialSuite
from nim_core.testing.conformance.hygiene import PluginSuite
from nim_core.testing.conformance.served import Served
from nim_core.testing.conformance.sink import SinkSuite, Stored
from nim_core.testing.conformance.source import SourceSuite
from nim_core.testing.conformance.suite import Suite, case

__all__ = [
    "BackendSuite",
    "CredentialCase",
    "CredentialSuite",
    "PluginSuite",
    "Served",
    "ServedModel",
    "SinkSuite",
    "SourceSuite",
    "Stored",
    "Suite",
    "case",
]
