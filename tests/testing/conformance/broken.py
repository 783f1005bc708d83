"""Sources that are each broken in one way, and which tests of the kit have to say so, in what words."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from attrs import evolve

from nim_core.errors import AuthenticationError, NimError, PermissionDeniedError, SourceError, TransientError
from nim_core.types import BearerToken, CacheKey, Digest, HttpObject, Listing
from tests.testing.conformance.acme import AcmeSource

ASKED = "test_it_asks_through_core"
DIGESTS = "test_digests_are_right"
FILES = "test_every_file_is_listed_and_no_other"
NONE = "test_an_answer_that_is_none_is_refused"
PINNED = "test_the_pinned_revision_can_be_asked_for"
READ = "test_every_file_is_read"
REFUSED = "test_refusals_are_told_apart"
THREADS = "test_locate_answers_several_threads_at_once"
TWICE = "test_listing_twice_gives_the_same"


class Broken(AcmeSource):
    """``fails``: tests that have to fail, and no others but ``may``; ``says``: part of the first one's message."""

    fails: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    says: str = ""


class Good(Broken):
    pass


class TokenToStorage(Broken):
    fails = frozenset({"test_what_signs_in_goes_to_its_endpoint_alone"})
    says = "the header Authorization went to http://127.0.0.1"

    def data_headers(self, uri):
        return self.headers(uri)


class TokenInQuery(Broken):
    fails = frozenset({"test_what_signs_in_goes_to_its_endpoint_alone"})
    says = "has a secret in it"

    def locate(self, uri, file):
        found = super().locate(uri, file)
        return evolve(found, url=f"{found.url.reveal()}&key={self.token(uri)}")


class TokenAfterRedirect(Broken):
    fails = frozenset({"test_what_signs_in_stays_behind_when_a_listing_is_redirected"})
    says = "the header Authorization went to http://elsewhere.example"

    def get(self, url, headers):
        response = self.http.get(url, headers=headers, extensions={"follow_redirects": False})
        return self.get(response.headers["Location"], headers) if response.has_redirect_location else response


class WrongSize(Broken):
    fails = frozenset({"test_sizes_are_right", READ})
    says = "LICENSE: 641 instead of 640"

    def listed(self, entry):
        return evolve(super().listed(entry), size=int(entry["size"]) + 1)


class DigestOfSomethingElse(Broken):
    fails = frozenset({DIGESTS, READ})
    says = "leave out what is not the digest of the whole content"

    def listed(self, entry):
        return evolve(super().listed(entry), digests=(Digest("sha256", hashlib.sha256().hexdigest()),))


class LastPageMissing(Broken):
    fails = frozenset({FILES, READ})
    may = frozenset({"test_one_file_can_be_named"})
    says = "are all pages asked for"

    def list_files(self, uri):
        found = super().list_files(uri)
        return evolve(found, files=found.files[:-1])


class PageTwice(Broken):
    fails = frozenset({FILES})
    may = frozenset({READ})
    says = "listed twice"

    def list_files(self, uri):
        found = super().list_files(uri)
        return evolve(found, files=(*found.files, *found.files[:2]))


class Climbing(Broken):
    fails = frozenset({FILES})
    says = "unsafe file path: '../LICENSE'"

    def listed(self, entry):
        return super().listed({**entry, "path": f"../{entry['path']}"})


class ListingInPieces(Broken):
    fails = frozenset({FILES})
    says = "returned generator from list_files, expected Listing"

    def list_files(self, uri):
        yield from super().list_files(uri).files


class NothingWhereForbidden(Broken):
    fails = frozenset({REFUSED})
    says = "HTTP 403 becomes no error; raise PermissionDeniedError, and never make a listing"

    def understood(self, uri, response):
        if response.status_code == 403:
            return {"files": [], "revision": "r1"}
        return super().understood(uri, response)


class ForbiddenForUnknown(Broken):
    fails = frozenset({REFUSED})
    says = "HTTP 401 becomes PermissionDeniedError"

    def refusal(self, uri, response):
        if response.status_code == 401:
            return PermissionDeniedError(f"no access: {uri.display}")
        return super().refusal(uri, response)


class NothingWhereMissing(Broken):
    fails = frozenset({REFUSED, "test_what_is_missing_is_not_found"})
    says = "raise NotFoundError"

    def understood(self, uri, response):
        if response.status_code == 404:
            return {"files": [], "revision": "none"}
        return super().understood(uri, response)


class KeyErrors(Broken):
    fails = frozenset({NONE})
    says = "leaves the plugin; raise SourceError from it"

    def list_files(self, uri):
        index = self.ask(uri, f"/{uri.location}/{uri.revision or 'latest'}/index.json")
        return Listing(uri=uri, files=tuple(self.listed(entry) for entry in index["files"]), pinned=index["revision"])


class NonsenseIsEmpty(Broken):
    fails = frozenset({NONE})
    may = frozenset({"test_an_endless_answer_is_refused"})
    says = "as an answer becomes a listing of 0 files"

    def list_files(self, uri):
        try:
            return super().list_files(uri)
        except SourceError as exc:
            if type(exc) is SourceError and "not an" in exc.message:
                return Listing(uri=uri, files=(), pinned="r1")
            raise


class OwnSocket(Broken):
    fails = frozenset({ASKED})
    says = "the plugin opens connections of its own, to 127.0.0.1:"

    def locate(self, uri, file):
        found = super().locate(uri, file)
        connection = http.client.HTTPConnection(urlsplit(found.url.reveal()).netloc)
        connection.request("HEAD", "/r1/LICENSE")
        connection.close()
        return found


class Remembers(Broken):
    fails = frozenset({"test_an_expired_url_is_not_given_out_again"})
    says = "ask the service anew each time locate is called"

    def __init__(self, context):
        super().__init__(context)
        self.known = {}

    def locate(self, uri, file):
        if file.path not in self.known:
            self.known[file.path] = super().locate(uri, file)
        return self.known[file.path]


class TellsToken(Broken):
    fails = frozenset({"test_errors_show_no_secret"})
    says = "the error has a secret in its text: AuthenticationError"

    def refusal(self, uri, response):
        if response.status_code == 401:
            return AuthenticationError(f"acme does not know the token {self.token(uri)}")
        return super().refusal(uri, response)


class LogsToken(Broken):
    fails = frozenset({"test_logs_show_no_secret"})
    says = "a secret is logged"

    def headers(self, uri):
        logging.getLogger(__name__).debug("asking with %s", super().headers(uri))
        return super().headers(uri)


class AsksWhenMade(Broken):
    fails = frozenset({"test_making_a_source_asks_nobody"})
    says = "the factory asks: GET http://127.0.0.1"

    def __init__(self, context):
        super().__init__(context)
        with contextlib.suppress(NimError):
            self.http.get(f"{self.url}/hello")


class KeepsFileInItself(Broken):
    fails = frozenset({THREADS})
    may = frozenset({READ, "test_a_refused_url_is_located_again", "test_an_expired_url_is_not_given_out_again"})
    says = "keep what belongs to one call in local variables"

    def locate(self, uri, file):
        self.file = file
        self.headers(uri)
        time.sleep(0.001)
        return super().locate(uri, self.file)


class PinsName(Broken):
    fails = frozenset({"test_another_content_is_another_revision"})
    says = "the content changed, and pinned stayed 'latest'"

    def pinned(self, uri, index):
        return uri.revision or "latest"


class PinsClock(Broken):
    fails = frozenset({TWICE, PINNED})
    says = "of one content"
    clock = itertools.count()

    def pinned(self, uri, index):
        return f"at-{next(self.clock)}"

    def list_files(self, uri):
        known = evolve(uri, revision=None if (uri.revision or "").startswith("at-") else uri.revision)
        return evolve(super().list_files(known), uri=uri)


class PlaceByAsking(Broken):
    fails = frozenset({"test_cache_key_is_pure"})
    says = "it is to be worked out from the URI alone"

    def cache_key(self, uri, pinned):
        found = self.ask(uri, f"/{uri.location}/latest/index.json")
        return CacheKey(root="acme/hub", repo="model", snapshot=found["revision"])


class TriesAgain(Broken):
    fails = frozenset({"test_core_alone_tries_again"})
    says = "the plugin tries again by itself: GET http://127.0.0.1"

    def get(self, url, headers):
        for _ in range(2):
            response = super().get(url, headers)
            if response.status_code < 500:
                break
        return response


class Waits(Broken):
    fails = frozenset({"test_a_wish_to_wait_is_passed_on"})
    says = "the plugin waits by itself"

    def refusal(self, uri, response):
        time.sleep(float(response.headers.get("Retry-After", 0)))
        return super().refusal(uri, response)


class ForgetsWait(Broken):
    fails = frozenset({"test_a_wish_to_wait_is_passed_on"})
    says = "Retry-After: 4 becomes retry_after=None"

    def refusal(self, uri, response):
        response.headers.pop("Retry-After", None)
        return super().refusal(uri, response)


class SetsVariable(Broken):
    fails = frozenset({"test_it_changes_nothing_of_the_process"})
    says = "environment variables are changed: ACME_SEEN"

    def list_files(self, uri):
        os.environ["ACME_SEEN"] = str(time.monotonic_ns())
        return super().list_files(uri)


class Prints(Broken):
    fails = frozenset({"test_asking_prints_nothing"})
    says = "listing or locating prints 'asking"

    def list_files(self, uri):
        sys.stdout.write(f"asking {uri.display}\n")
        return super().list_files(uri)


class LeavesThread(Broken):
    fails = frozenset({"test_closing_leaves_nothing_running"})
    says = "threads are left after close: ['acme']"

    def list_files(self, uri):
        threading.Thread(target=time.sleep, args=(5,), name="acme", daemon=True).start()
        return super().list_files(uri)


class NoEndpoint(Broken):
    fails = frozenset({"test_credentials_are_asked_for_by_endpoint"})
    says = "context.credential is asked for ['acme'], which are no URLs"

    def token(self, uri):
        found = self.credential("acme", uri)
        return found.token.reveal() if isinstance(found, BearerToken) else None


class TokenTakenForGranted(Broken):
    fails = frozenset({"test_without_credentials_none_is_sent"})
    says = "without credentials: plugin tokentakenforgranted"

    def token(self, uri):
        return self.credential(self.url, uri).token.reveal()


class LocatesOnce(Broken):
    fails = frozenset({"test_a_refused_url_is_located_again", "test_an_expired_url_is_not_given_out_again"})
    may = frozenset({THREADS})
    says = "locate is asked again then"

    def __init__(self, context):
        super().__init__(context)
        self.told = set()

    def locate(self, uri, file):
        if file.path in self.told:
            raise PermissionDeniedError(f"told already: {uri.display}")
        self.told.add(file.path)
        return super().locate(uri, file)


class TokenAsArgument(Broken):
    fails = frozenset({"test_no_program_is_given_a_secret"})
    says = "a program is started with a secret among its arguments"

    def list_files(self, uri):
        subprocess.run(["true", self.token(uri) or ""], check=True)
        return super().list_files(uri)


class TokenShown(Broken):
    fails = frozenset({"test_what_locate_answers_shows_no_secret"})
    says = "wrap it in Secret"

    def locate(self, uri, file):
        class Shown(HttpObject):
            def __repr__(self):
                return f"Shown({self.url.reveal()}, {self.token})"

        found = super().locate(uri, file)
        shown = Shown(url=found.url, ranges=found.ranges)
        object.__setattr__(shown, "token", self.token(uri))
        return shown


class PlainNames(Broken):
    fails = frozenset({READ})
    may = frozenset({THREADS, ASKED, "test_one_file_can_be_named"})
    says = "look at what locate answers"

    def quoted(self, path):
        return path


class TransientForever(Broken):
    fails = frozenset({REFUSED, "test_what_is_missing_is_not_found"})
    says = "HTTP 404 becomes TransientError"

    def refusal(self, uri, response):
        if response.status_code == 404:
            return TransientError(f"not now: {uri.display}")
        return super().refusal(uri, response)


SOURCES: Mapping[str, type[Broken]] = {kind.__name__.lower(): kind for kind in (Good, *Broken.__subclasses__())}
