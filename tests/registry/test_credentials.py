"""Asking plugins how to sign in: who is asked, what is remembered, and what a failure does."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from nim_core.errors import AuthenticationError, PluginError
from nim_core.registry.credentials import CredentialMemory, GivenCredential
from nim_core.types import Anonymous, BearerToken, CredentialRequest, ModelUri, UriStyle, Variables

SOURCE = "@hookimpl\ndef nim_register_sources():\n    return [source('s', environment=(KEY,))]\n"
KEY = 'KEY = EnvVar(name="S_KEY", summary="key", secret=True)\n'

NO_VARIABLES = Variables((), {})


def request(source="s", endpoint="https://h", uri=None):
    return CredentialRequest(source=source, endpoint=endpoint, uri=uri, variables=NO_VARIABLES)


def provider(body, marker="@hookimpl"):
    return f"{marker}\ndef nim_provide_credential(request):\n    {body}\n"


def token(origin):
    return f"return BearerToken(token='secret-of-{origin}', origin='{origin}')"


def test_what_was_given_is_remembered_once_per_endpoint():
    answers = {"https://h": BearerToken(token="x", origin="KEY"), "https://g": Anonymous()}
    memory = CredentialMemory(lambda request: answers[request.endpoint])
    uris = [ModelUri(scheme="s", location=f"org/{name}", style=UriStyle.REPOSITORY) for name in "ab"]
    for uri in uris:
        memory.get(request(uri=uri))
    memory.get(request(endpoint="https://g"))
    assert memory.given == tuple(GivenCredential("s", endpoint, answer) for endpoint, answer in answers.items())
    assert "'x'" not in repr(memory.given)


class TestHook:
    def test_the_first_answer_wins_and_trylast_ones_come_last(self, site):
        site.plugin("a", provider(token("a"), "@hookimpl(trylast=True)"))
        site.plugin("b", provider("return None"))
        site.plugin("vault", provider(token("vault")))

        assert site.load().provide_credential(request()).origin == "vault"
        assert site.load(NIM_PLUGINS_DISABLED="vault").provide_credential(request()).origin == "a"

    def test_nobody_knows(self, site):
        site.plugin("a", provider("return None"))

        assert site.load().provide_credential(request()) == Anonymous()

    def test_a_refusal_stops_and_nobody_else_is_asked(self, site):
        site.plugin(
            "a", "from nim_core.errors import AuthenticationError\n" + provider("raise AuthenticationError('sealed')")
        )
        site.plugin("b", provider(token("b")))

        with pytest.raises(AuthenticationError, match="sealed") as caught:
            site.load().provide_credential(request())

        assert caught.value.plugin == "a"

    @pytest.mark.parametrize("raised", ["ValueError('top-secret')", "SystemExit('top-secret')"])
    def test_a_bug_of_a_foreign_plugin_is_reported_once_and_the_next_one_is_asked(self, site, raised, logged):
        site.plugin("b", provider(f"raise {raised}"), version="3")
        site.plugin("c", provider(token("c")))
        registry = site.load()

        assert [registry.provide_credential(request()).origin for _ in range(2)] == ["c", "c"]
        (entry,) = logged
        assert (entry["event"], entry["plugin"], entry["version"]) == ("plugin_hook_failed", "b", "3")
        assert "top-secret" not in str(logged)

    @pytest.mark.parametrize("raised", ["ValueError('top-secret')", "SystemExit('top-secret')"])
    def test_a_bug_of_the_sources_own_plugin_stops_names_it_and_shows_no_secret(self, site, raised):
        own = f"@hookimpl\ndef nim_register_sources():\n    return [source({request().source!r})]\n"
        site.plugin("a", provider("return None"))
        site.plugin("b", own + provider(f"raise {raised}"), version="3")
        site.plugin("c", provider(token("c")))

        with pytest.raises(PluginError, match=r"plugin b \(dist-b 3\) failed in nim_provide_credential") as caught:
            site.load().provide_credential(request())

        assert type(caught.value) is PluginError
        assert "top-secret" not in caught.value.message
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize("answer", ["'top-secret'", "''", "{'token': 'top-secret'}", "False"])
    def test_an_answer_of_another_type_is_a_bug_that_a_strict_user_has_stop(self, site, answer):
        site.plugin("a", provider(f"return {answer}"))

        with pytest.raises(PluginError, match=r"plugin a \(dist-a 1\.0\) returned \w+ from nim_provide") as caught:
            site.load(NIM_PLUGIN_STRICT="1").provide_credential(request())

        assert "top-secret" not in str(caught.value)

    def test_one_call_at_a_time(self, site):
        site.plugin(
            "a",
            "import time\nrunning = []\n"
            + provider("running.append(1); time.sleep(0.01); assert len(running) == 1; running.pop()"),
        )
        registry = site.load()
        failed = []

        def ask():
            try:
                registry.provide_credential(request())
            except PluginError as exc:
                failed.append(exc)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert failed == []


class TestOfASource:
    @pytest.fixture
    def credential(self, site):
        """The callable a source's factory is given."""
        site.plugin(
            "s",
            KEY + SOURCE + "asked = []\n" + provider("asked.append(request); " + token("s").replace("'s'", "'S_KEY'")),
        )
        with httpx.Client() as client:
            registry = site.load(S_KEY="k")
            yield registry.open_source("s", client)._source.context.credential

    @pytest.fixture
    def asked(self, credential):
        import installed_dist_s_s

        return installed_dist_s_s.asked

    def test_the_request_says_who_and_has_every_declared_variable(self, credential, asked):
        uri = ModelUri(scheme="s", location="a/b")

        assert credential("https://h", uri).origin == "S_KEY"

        (made,) = asked
        assert (made.source, made.endpoint, made.uri) == ("s", "https://h", uri)
        assert made.variables.secret("S_KEY").reveal() == "k"

    def test_it_is_remembered_per_endpoint_and_repository(self, credential, asked):
        file = ModelUri(scheme="s", location="a/b", file="x")
        for endpoint, uri in [
            ("https://h", None),
            ("https://h", None),
            ("https://i", None),
            ("https://h", ModelUri(scheme="s", location="a/b")),
            ("https://h", file),
            ("https://h", ModelUri(scheme="s", location="a/b", file="y")),
            ("https://h", ModelUri(scheme="s", location="a/b", revision="r")),
        ]:
            credential(endpoint, uri)

        assert [(made.endpoint, str(made.uri)) for made in asked] == [
            ("https://h", "None"),
            ("https://i", "None"),
            ("https://h", "s://a/b"),
            ("https://h", "s://a/b:r"),
        ]

    def test_it_is_remembered_per_bucket_for_objects(self, credential, asked):
        for location in ("one/a", "one/b/c", "two/a", "two"):
            credential("https://h", ModelUri(scheme="s", location=location, style=UriStyle.OBJECT))

        assert [made.uri.location for made in asked] == ["one/a", "two/a"]


class TestMemory:
    def memory(self, *answers):
        self.now = 1000.0
        self.answers = list(answers)
        return CredentialMemory(lambda _: self.answers.pop(0), lambda: self.now)

    def bearer(self, name, expires_at=None):
        return BearerToken(token=name, origin=name, expires_at=expires_at)

    def test_until_a_minute_before_it_expires(self):
        first, second = self.bearer("first", expires_at=2000.0), self.bearer("second")
        memory = self.memory(first, second)

        got = []
        for self.now in (1000.0, 1939.0, 1940.0, 9999.0):
            got.append(memory.get(request()).origin)

        assert got == ["first", "first", "second", "second"]

    def test_no_credential_is_remembered_too(self):
        memory = self.memory(Anonymous())

        assert memory.get(request()) is memory.get(request())

    def test_sources_do_not_share(self):
        memory = self.memory(self.bearer("one"), self.bearer("two"))

        assert [memory.get(request(source=name)).origin for name in ("a", "b", "a")] == ["one", "two", "one"]

    def test_a_failure_is_not_remembered(self):
        answers = iter([AuthenticationError("sealed"), self.bearer("one")])

        def ask(_):
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        memory = CredentialMemory(ask)
        with pytest.raises(AuthenticationError):
            memory.get(request())

        assert memory.get(request()).origin == "one"

    def test_threads_that_want_the_same_one_ask_once(self):
        asked = []

        def ask(_):
            asked.append(1)
            time.sleep(0.02)
            return self.bearer("one")

        memory = CredentialMemory(ask)
        threads = [threading.Thread(target=memory.get, args=(request(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(asked) == 1
