"""What follows from the end of a request, as a table."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path

import pycurl
import pytest
from attrs import evolve

from nim_core.errors import (
    AuthenticationError,
    CacheError,
    CachePermissionError,
    ConfigError,
    DiskFullError,
    EntitlementError,
    LicenseError,
    NimError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RegionBlockedError,
    RemoteChangedError,
    SizeMismatchError,
    SourceError,
    StalledError,
    TransientError,
    UnsupportedError,
)
from nim_core.settings import Settings
from nim_core.transfer.exchange import Ended, Response
from nim_core.transfer.failures import Peer
from nim_core.transfer.hosts import Origin
from nim_core.transfer.network import network_config
from nim_core.transfer.outcomes import Decision, Next, Refusal, decide, status_error

NOW = 1_750_000_000.0
NAME = "test://repo?file=f"
NETWORK = network_config(Settings({"HTTPS_PROXY": "http://u:p@proxy.example:3128"}))
ORIGIN = Origin("https", "example.com", 443)
PEER = Peer(origin=ORIGIN, proxy=None, trust=NETWORK.trust)
PROXIED = evolve(PEER, proxy=NETWORK.https_proxy)


def ended(status=0, *, headers=None, code=0, message="", **fields):
    return Ended(
        **{
            "response": Response(status=status, headers=headers or {}),
            "accepted": False,
            "code": code,
            "message": message,
            "error": None,
            "address": "192.0.2.1",
            "connected": True,
            "seconds": 3.0,
            **fields,
        }
    )


def judge(end, *, refusal=None, whole=False, peer=PEER):
    return decide(end, refusal=refusal, whole=whole, peer=peer, name=NAME, now=NOW)


def outcome(end, **options):
    decision = judge(end, **options)
    return decision.next, type(decision.error)


class TestData:
    def test_all_of_it(self):
        assert judge(ended(200, accepted=True), whole=True) == Decision(next=Next.DONE)

    def test_not_all_of_it(self):
        decision = judge(ended(206, accepted=True))
        assert (decision.next, type(decision.error)) == (Next.RETRY, TransientError)
        assert str(decision.error) == "answer ended early: example.com"

    @pytest.mark.parametrize("whole", [False, True])
    def test_cut(self, whole):
        end = ended(200, accepted=True, code=pycurl.E_PARTIAL_FILE, message="3 bytes missing")
        decision = judge(end, whole=whole)
        assert (decision.next, type(decision.error)) == (Next.RETRY, TransientError)
        assert str(decision.error) == "connection to example.com failed: 3 bytes missing"


@pytest.mark.parametrize(
    ("refusal", "step", "kind"),
    [
        (Refusal.RANGE_IGNORED, Next.SINGLE, UnsupportedError),
        (Refusal.WRONG_RANGE, Next.RETRY, TransientError),
        (Refusal.CHANGED, Next.RESTART, RemoteChangedError),
        (Refusal.WRONG_SIZE, Next.RESTART, SizeMismatchError),
        (Refusal.ENCODED, Next.RETRY, UnsupportedError),
    ],
)
@pytest.mark.parametrize("code", [0, pycurl.E_WRITE_ERROR])
def test_answers_that_are_not_what_was_asked_for(refusal, step, kind, code):
    decision = judge(ended(200, code=code), refusal=refusal)
    assert (decision.next, type(decision.error)) == (step, kind)
    assert str(decision.error) == f"{refusal.value}: {NAME} from example.com"


def test_every_refusal_is_in_the_table():
    assert {judge(ended(200), refusal=refusal).next for refusal in Refusal} == {
        Next.SINGLE,
        Next.RETRY,
        Next.RESTART,
        Next.TO_DISK,
    }


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "step", "kind"),
        [
            (100, Next.RETRY, SourceError),
            (204, Next.RETRY, SourceError),
            (300, Next.RETRY, SourceError),
            (304, Next.RETRY, SourceError),
            (400, Next.RELOCATE, SourceError),
            (401, Next.RELOCATE, AuthenticationError),
            (402, Next.FAIL, EntitlementError),
            (403, Next.RELOCATE, PermissionDeniedError),
            (404, Next.RELOCATE, NotFoundError),
            (405, Next.FAIL, SourceError),
            (408, Next.RETRY, TransientError),
            (410, Next.RELOCATE, NotFoundError),
            (412, Next.FAIL, LicenseError),
            (416, Next.SINGLE, UnsupportedError),
            (418, Next.FAIL, SourceError),
            (425, Next.RETRY, TransientError),
            (429, Next.RETRY, RateLimitedError),
            (451, Next.FAIL, RegionBlockedError),
            (500, Next.RETRY, TransientError),
            (501, Next.RETRY, TransientError),
            (502, Next.RETRY, TransientError),
            (503, Next.RETRY, TransientError),
            (504, Next.RETRY, TransientError),
            (507, Next.RETRY, TransientError),
            (522, Next.RETRY, TransientError),
            (599, Next.RETRY, TransientError),
        ],
    )
    def test_table(self, status, step, kind):
        decision = judge(ended(status))
        assert (decision.next, type(decision.error)) == (step, kind)
        assert f"(HTTP {status} from example.com)" in str(decision.error)

    @pytest.mark.parametrize("status", [403, 404, 500, 503])
    def test_a_body_too_long_to_be_kept_makes_no_difference(self, status):
        assert outcome(ended(status, code=pycurl.E_WRITE_ERROR)) == outcome(ended(status))

    def test_a_header_flood_is_a_failed_connection(self):
        assert outcome(ended(200, code=pycurl.E_WRITE_ERROR)) == (Next.RETRY, TransientError)

    @pytest.mark.parametrize("status", [429, 503, 500, 408])
    @pytest.mark.parametrize(
        ("headers", "delay"),
        [
            ({}, None),
            ({"retry-after": "17"}, 17.0),
            ({"retry-after": "Sun, 15 Jun 2025 15:07:20 GMT"}, 1_750_000_040 - NOW),
            ({"retry-after": "soon"}, None),
        ],
    )
    def test_how_long_the_server_asks_to_wait(self, status, headers, delay):
        decision = judge(ended(status, headers=headers))
        assert (decision.next, decision.delay) == (Next.RETRY, delay)
        assert getattr(decision.error, "retry_after", delay) == delay

    @pytest.mark.parametrize(("status", "refused"), [(429, True), (503, True), (500, False), (404, False)])
    def test_whether_the_server_asks_for_fewer_requests(self, status, refused):
        assert judge(ended(status)).refused is refused

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects(self, status):
        end = ended(status, headers={"location": "/there"})
        assert judge(end) == Decision(next=Next.FOLLOW, location="/there")

    def test_a_redirect_to_nowhere(self):
        assert outcome(ended(302)) == (Next.RETRY, SourceError)

    @pytest.mark.parametrize("status", [300, 304, 305, 306])
    def test_other_statuses_with_a_location_are_no_redirects(self, status):
        assert judge(ended(status, headers={"location": "/there"})).next is Next.RETRY

    def test_what_the_server_said(self):
        assert str(status_error(403, "h", "gated")) == "access denied (HTTP 403 from h): gated"


class TestProxies:
    @pytest.mark.parametrize(
        ("status", "step", "kind"),
        [(407, Next.FAIL, ConfigError), (403, Next.FAIL, SourceError), (503, Next.RETRY, TransientError)],
    )
    def test_a_tunnel_that_is_refused(self, status, step, kind):
        end = ended(status, connect_status=status, code=pycurl.E_RECV_ERROR)
        decision = judge(end, peer=PROXIED)
        assert (decision.next, type(decision.error)) == (step, kind)
        assert "proxy.example:3128" in str(decision.error)
        assert "u:p" not in f"{decision.error!r} {decision.error.hint}"

    def test_a_proxy_that_refuses_without_a_tunnel(self):
        assert outcome(ended(407), peer=PROXIED) == (Next.FAIL, ConfigError)

    def test_a_refusal_behind_a_tunnel_that_stands(self):
        decision = judge(ended(407, connect_status=200), peer=PROXIED)
        assert (decision.next, type(decision.error)) == (Next.FAIL, ConfigError)

    @pytest.mark.parametrize("status", [403, 500])
    def test_the_server_s_own_answer_behind_a_tunnel_that_stands(self, status):
        assert outcome(ended(status, connect_status=200), peer=PROXIED) == outcome(ended(status))


class TestCodes:
    @pytest.mark.parametrize(
        "code",
        [
            pycurl.E_COULDNT_RESOLVE_PROXY,
            pycurl.E_COULDNT_RESOLVE_HOST,
            pycurl.E_COULDNT_CONNECT,
            pycurl.E_FTP_WEIRD_SERVER_REPLY,
            pycurl.E_HTTP2,
            pycurl.E_PARTIAL_FILE,
            pycurl.E_SSL_CONNECT_ERROR,
            pycurl.E_GOT_NOTHING,
            pycurl.E_SEND_ERROR,
            pycurl.E_RECV_ERROR,
            pycurl.E_UNSUPPORTED_PROTOCOL,
        ],
    )
    def test_codes_that_may_pass(self, code):
        decision = judge(ended(code=code, message="words"))
        assert (decision.next, type(decision.error)) == (Next.RETRY, TransientError)
        assert str(decision.error) == "connection to example.com failed: words"

    @pytest.mark.parametrize(
        ("code", "hint"),
        [
            (pycurl.E_URL_MALFORMAT, None),
            (pycurl.E_PEER_FAILED_VERIFICATION, "SSL_CERT_FILE"),
            (pycurl.E_SSL_CACERT_BADFILE, "SSL_CERT_FILE"),
            (pycurl.E_SSL_ISSUER_ERROR, "SSL_CERT_FILE"),
        ],
    )
    def test_codes_that_will_not(self, code, hint):
        decision = judge(ended(code=code, message="words"))
        assert (decision.next, type(decision.error)) == (Next.FAIL, SourceError)
        assert str(decision.error) == "cannot talk to example.com: words"
        assert hint is decision.error.hint or hint in decision.error.hint

    def test_a_code_without_words(self):
        assert str(judge(ended(code=pycurl.E_RECV_ERROR)).error) == "connection to example.com failed: error 56"

    def test_a_stall_is_told_by_its_phase(self):
        end = ended(code=pycurl.E_OPERATION_TIMEDOUT, stalled="no data from", seconds=30.2)
        decision = judge(end)
        assert (decision.next, type(decision.error)) == (Next.RETRY, StalledError)
        assert str(decision.error) == "no data from example.com for 30 s"

    def test_a_timeout_of_libcurl_s_own(self):
        assert outcome(ended(code=pycurl.E_OPERATION_TIMEDOUT)) == (Next.RETRY, StalledError)

    def test_a_stall_in_the_middle_of_data(self):
        end = ended(200, accepted=True, code=pycurl.E_OPERATION_TIMEDOUT, stalled="no data from", seconds=30.0)
        assert outcome(end) == (Next.RETRY, StalledError)


class TestExceptions:
    @pytest.mark.parametrize(
        ("exc", "step", "kind"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), Next.FAIL, DiskFullError),
            (OSError(errno.EDQUOT, "Disk quota exceeded"), Next.FAIL, DiskFullError),
            (OSError(errno.EACCES, "Permission denied"), Next.FAIL, CachePermissionError),
            (OSError(errno.EROFS, "Read-only file system"), Next.FAIL, CachePermissionError),
            (OSError(errno.EIO, "Input/output error"), Next.FAIL, CacheError),
            (TransientError("lost"), Next.RETRY, TransientError),
            (RateLimitedError("slow down"), Next.RETRY, RateLimitedError),
            (PermissionDeniedError("gated"), Next.FAIL, PermissionDeniedError),
            (DiskFullError("full"), Next.FAIL, DiskFullError),
            (NimError("other"), Next.FAIL, NimError),
            (ValueError("bug"), Next.FAIL, CacheError),
            (ssl.SSLError("odd"), Next.FAIL, CacheError),
        ],
    )
    def test_table(self, exc, step, kind):
        assert outcome(ended(200, accepted=True, error=exc, code=pycurl.E_WRITE_ERROR), whole=True) == (step, kind)

    def test_an_error_of_the_contract_is_passed_on_as_it_is(self):
        error = TransientError("lost")
        assert judge(ended(error=error)).error is error

    def test_a_bug_is_called_one_and_keeps_its_cause(self):
        bug = ValueError("odd")
        error = judge(ended(error=bug)).error
        assert str(error) == "internal error while data came from example.com: ValueError: odd"
        assert error.__cause__ is bug

    def test_storage_is_named(self):
        error = judge(ended(error=OSError(errno.ENOSPC, "No space left on device", str(Path("/Cache/F"))))).error
        assert str(error) == "no space left on device: /Cache/F"
