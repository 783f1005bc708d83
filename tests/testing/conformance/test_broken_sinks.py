"""Sinks that are broken on purpose: each fails the test that is meant for it, and no other."""

from __future__ import annotations

from textwrap import indent

import pytest

from tests.testing.conformance.broken_session import Failures, run_broken

PLUGIN = """
from urllib.parse import unquote
from attrs import evolve
from nim_core import hookimpl
from nim_core.errors import SourceError
from nim_core.types import Upload
from tests.testing.conformance.shelf_plugin import PART, ShelfSink, sink_spec, source_spec

{broken}

@hookimpl
def nim_register_sources():
    return [source_spec("{name}")]

@hookimpl
def nim_register_sinks():
    return [sink_spec("{name}", Broken)]
"""
SUITES = """
import pytest
from nim_core.testing.conformance import SinkSuite, Stored
from tests.testing.conformance.shelf_store import READER, TOKEN, ShelfStore

class Shelf(SinkSuite):
    @pytest.fixture
    def stored(self, certificates):
        with ShelfStore() as store:
            def variables(token):  # with one certificate, as loading all of a machine's takes longer than a test
                return {"SHELF_URL": store.url, "SHELF_TOKEN": token, "SSL_CERT_FILE": str(certificates.ca)}
            environment = variables(TOKEN)
            yield Stored(
                bucket="shelf", environment=environment, stranger=variables("unknown-token"), reader=variables(READER)
            )
"""
BROKEN = {
    "nothing": ("pass", (), ""),
    "asks": (
        """
def __init__(self, context):
    super().__init__(context)
    context.http.get(self.url)
""",
        ("test_making_a_sink_asks_nobody",),
        "asks somebody over the network; do that when it is first used",
    ),
    "decodes": (
        """
def address(self, bucket, kind, name=""):
    return super().address(bucket, kind, unquote(name))
""",
        ("test_keys_are_literal",),
        "keys are literal: encode them for URLs",
    ),
    "overwrites": (
        """
def put(self, new, body):
    condition = self.conditions(new) if new.replaces else {}
    headers = {**condition, **self.described(new), **self.checksum(new.digests)}
    self.send("PUT", self.address(self.bucket, "o", new.key), new.key, body, headers)
""",
        ("test_what_somebody_else_wrote_stays",),
        "nothing may be overwritten (If-None-Match: *",
    ),
    "stale": (
        """
def put(self, new, body):
    condition = {} if new.replaces else self.conditions(new)
    headers = {**condition, **self.described(new), **self.checksum(new.digests)}
    self.send("PUT", self.address(self.bucket, "o", new.key), new.key, body, headers)
""",
        ("test_what_has_changed_since_stays",),
        "the key holds another version than `new.replaces` (If-Match",
    ),
    "forgets": (
        """
def head(self, key):
    found = super().head(key)
    return found and evolve(found, digests=())
""",
        ("test_what_is_written_is_read",),
        "store NewObject.digests as metadata",
    ),
    "trusts": (
        """
def checksum(self, digests):
    return {} if len(digests) > 1 else super().checksum(digests)
""",
        ("test_damaged_bytes_are_found_out",),
        "send the CRC-32C along, or compare what is stored",
    ),
    "quiet": (
        """
def list_objects(self, prefix):
    try:
        yield from list(super().list_objects(prefix))
    except SourceError:
        return
""",
        ("test_a_bucket_that_does_not_exist",),
        "the bucket of list_objects() does not exist",
    ),
    "raw": (
        """
def check(self, status, what):
    if status >= 500:
        raise RuntimeError(f"HTTP {status}")
    super().check(status, what)
""",
        ("test_statuses_are_the_contracts_errors",),
        "expected RateLimitedError or TransientError",
    ),
    "leaks": (
        """
def list_objects(self, prefix):
    try:
        yield from list(super().list_objects(prefix))
    except SourceError as exc:
        raise type(exc)(f"refused: {self.headers}") from exc
""",
        ("test_a_bucket_that_does_not_exist",),
        "NotFoundError shows the value of a secret variable",
    ),
    "restarts": (
        """
def begin(self, new, token):
    return super().begin(new, None)
""",
        ("test_another_process_goes_on",),
        "ask the service which parts it has, and say so in Upload.stored",
    ),
    "mixes": (
        """
def begin(self, new, token):
    known = token and self.http.get(self.part_url(Upload(token=token, part_bytes=PART)), headers=self.headers)
    key = known.json()["key"] if known and known.status_code == 200 else new.key
    return super().begin(evolve(new, key=key), token)
""",
        ("test_a_token_of_another_object",),
        "goes on with the upload of another key",
    ),
    "shortens": (
        """
def finish(self, new, upload, parts):
    headers = {**self.conditions(new), **self.described(new)}
    self.ask("POST", self.part_url(upload), new.key, **headers)
""",
        ("test_nothing_is_made_of_some_of_the_parts",),
        "fewer bytes than NewObject.size",
    ),
    "copies": (
        """
def copy(self, new, uri):
    found = self.told(self.bucket, uri.location.partition("/")[2])
    if uri.scheme != self.scheme or found is None:
        return False
    return super().copy(evolve(new, size=found.size, digests=found.digests), uri)
""",
        ("test_what_nobody_vouches_for_is_not_copied",),
        "copy() copies an object of another digest",
    ),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> Failures:
    plugins = {
        name: PLUGIN.format(name=name, broken=f"class Broken(ShelfSink):\n{indent(text.strip(), '    ')}\n")
        for name, (text, _, _) in BROKEN.items()
    }
    classes = "".join(f'class Test{name}(Shelf):\n    plugin = "{name}"\n\n' for name in BROKEN)
    return run_broken(tmp_path_factory.mktemp("sinks"), plugins, SUITES + classes)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_sink_fails_the_test_for_it(failures, name):
    _, tests, message = BROKEN[name]
    assert sorted(failures[name]) == sorted(tests), failures[name]
    for test in tests:
        assert message in failures[name][test]
