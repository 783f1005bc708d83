"""
The credentials level for who provides credentials: what a plugin owes those whose keys it hands out.

The plugin is asked as core asks it, alone and beside all others that are installed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import attrs
import pluggy
import pytest
from attrs import field, frozen

from nim_core.errors import AuthenticationError, PluginError
from nim_core.registry import PluginInfo, Registry
from nim_core.registry.discovery import discover
from nim_core.registry.guard import attributed
from nim_core.registry.loading import load_plugins, make_manager, only
from nim_core.settings import Settings
from nim_core.testing.conformance.hygiene import PluginSuite
from nim_core.testing.conformance.machine import nobodys_machine, registry_for
from nim_core.testing.conformance.suite import case as level
from nim_core.types import Ambient, Anonymous, Credential, CredentialRequest, Secret

__all__ = ["CredentialCase", "CredentialSuite"]

_HOOK: Final = "nim_provide_credential"
_CENTURY_SECONDS: Final = 100 * 365 * 86400.0


@frozen(kw_only=True)
class CredentialCase:
    """
    A question that the plugin has an answer to.

    Attributes:
        source: Name of the source, sink or backend that asks.
        endpoint: Where the credential will be sent, such as ``https://api.example.com``.
        expects: Kind of the answer, such as BearerToken.
        secrets: What is secret of it: every text that the answer may reveal. Empty: not looked at.
        environment: Variables by which the plugin finds it.
        nothing: Variables by which it finds nothing.
        broken: Variables by which what it looks into is there and cannot be read. None: it looks into nothing.
        foreign_endpoint: Somebody else's, who must not get these secrets. None: it goes by the source alone.
        uri: A model that is asked about. None: about none in particular.
    """

    source: str
    endpoint: str
    expects: type[Credential]
    secrets: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(factory=dict)
    nothing: Mapping[str, str] = field(factory=dict)
    broken: Mapping[str, str] | None = None
    foreign_endpoint: str | None = None
    uri: str | None = None


class CredentialSuite(PluginSuite):
    """The tests of a plugin that provides credentials; the author's fixture ``case`` gives the question."""

    @pytest.fixture(autouse=True)
    def _alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Keep what this machine has set out of the tests."""
        nobodys_machine(self.info(), monkeypatch, tmp_path_factory.mktemp("home"))

    @level("credentials")
    def test_the_credential_is_found(self, case: CredentialCase) -> None:
        """The kind that was meant, with its secrets, whole and with nothing around them."""
        answer = _answer(self.info(), case)
        assert answer is not None, (
            f"nim_provide_credential answers None to {case.source} at {case.endpoint}, and no other plugin is to answer"
        )
        assert isinstance(answer, case.expects), f"the answer is {answer!r}, expected {case.expects.__name__}"
        if case.secrets and _revealed(answer) - set(case.secrets):
            pytest.fail("the answer has another secret than CredentialCase.secrets; strip blanks and line ends")

    @level("credentials")
    def test_the_origin_is_named(self, case: CredentialCase) -> None:
        """Who is refused wants to know which variable or file it was."""
        answer = _answer(self.info(), case)
        assert answer is not None
        assert answer.origin.strip(), "the answer's origin is empty; name the variable or the file it came from"

    @level("credentials")
    def test_when_it_expires_is_a_unix_time(self, case: CredentialCase) -> None:
        """Core asks again a minute before."""
        answer = _answer(self.info(), case)
        ends = None if answer is None else answer.expires_at
        assert ends is None or time.time() < ends < time.time() + _CENTURY_SECONDS, (
            f"expires_at is {ends}: seconds since 1970, in the future; None where it does not expire"
        )

    @level("credentials")
    def test_it_has_nothing(self, case: CredentialCase) -> None:
        """None leaves the question to the next plugin; Anonymous ends it, and is for who brings the source itself."""
        answer = _answer(self.info(), case, case.nothing)
        if case.source in _brought(self.info()):
            assert answer is None or isinstance(answer, Anonymous | Ambient), f"out of nothing comes {answer!r}"
        else:
            assert answer is None, (
                f"the answer is {answer!r} where there is nothing: return None, or no other plugin will be asked"
            )

    @level("credentials")
    def test_it_leaves_others_alone(self, case: CredentialCase) -> None:
        """A plugin that brings sources answers for those, and not for anybody else's."""
        if not _brought(self.info()):
            pytest.skip("not declared: a source, sink or backend whose credentials these are")
        answer = _answer(self.info(), attrs.evolve(case, source="nim-kit-other"))
        assert answer is None, (
            "nim_provide_credential answers a source that is another plugin's; look at request.source, and return None"
        )

    @level("credentials")
    def test_a_strangers_endpoint_gets_nothing(self, case: CredentialCase) -> None:
        """What signs in at one host is lost when another host gets it."""
        if case.foreign_endpoint is None:
            pytest.skip("not declared: CredentialCase.foreign_endpoint")
        answer = _answer(self.info(), attrs.evolve(case, endpoint=case.foreign_endpoint))
        if answer is not None and _revealed(answer) & set(case.secrets):
            pytest.fail(f"{case.foreign_endpoint} gets what is for {case.endpoint}; compare request.endpoint")

    @level("credentials")
    def test_it_is_asked_at_its_turn(self, case: CredentialCase) -> None:
        """A site's plugin wins by being installed; one that brings a source answers last for it."""
        last = _implementation(self.info())[1].trylast
        if case.source in _brought(self.info()):
            assert last, (
                "the plugin brings the source itself: mark nim_provide_credential with @hookimpl(trylast=True), so "
                "that a site's own plugin can win"
            )
            return
        assert not last, "leave trylast out of @hookimpl: plugins that come with core would answer first"
        settings = Settings(case.environment)
        registry = registry_for(settings)
        together = registry.provide_credential(_request(case, registry, settings))
        alone = _answer(self.info(), case)
        assert alone is not None, "the plugin has no answer"
        same = (type(together), together.origin) == (type(alone), alone.origin)  # times may differ
        assert same, f"another installed plugin answers first, by {together.origin}"

    @level("credentials")
    def test_it_answers_on_any_thread(self, case: CredentialCase) -> None:
        """Core asks from its worker threads."""
        with ThreadPoolExecutor(1) as thread:
            elsewhere = thread.submit(_answer, self.info(), case).result()
        assert type(elsewhere) is type(_answer(self.info(), case)), "on another thread, the answer is another"

    @level("credentials")
    def test_what_cannot_be_read_is_an_error(self, case: CredentialCase) -> None:
        """Who has set a key is not to be taken for a stranger because a file is damaged."""
        if case.broken is None:
            pytest.skip("not declared: CredentialCase.broken")
        try:
            answer = _answer(self.info(), case, case.broken)
        except PluginError as exc:
            pytest.fail(f"{exc} from {exc.__cause__!r}; raise AuthenticationError, with the way out as hint")
        except AuthenticationError as exc:
            _check_hidden(case, f"{exc} {exc!r} {exc.hint} {exc.__cause__!r}", "AuthenticationError")
            if not exc.hint:
                pytest.fail(f"AuthenticationError ({exc}) has no hint: say what to do")
        else:
            pytest.fail(f"the answer is {answer!r} where its storage is broken; raise AuthenticationError")

    @level("credentials")
    def test_secrets_are_not_shown(
        self, case: CredentialCase, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither by the answer itself, nor by logs; nothing is printed."""
        with caplog.at_level(logging.DEBUG):
            answer = _answer(self.info(), case)
            printed = "".join(capfd.readouterr())
        _check_hidden(case, f"{answer!r} {answer}", "the answer, shown as text,")
        _check_hidden(case, caplog.text, "the log")
        _check_hidden(case, printed, "what is printed")
        assert not printed, "asking for a credential prints something; what a command prints is read by programs"


def _answer(info: PluginInfo, case: CredentialCase, environment: Mapping[str, str] | None = None) -> Credential | None:
    """Return what the plugin alone answers. None: it leaves the question to others."""
    settings = Settings(case.environment if environment is None else environment)
    manager, implementation = _implementation(info)
    with attributed(info, _HOOK):
        answer = only(manager, _HOOK, implementation.plugin)(request=_request(case, registry_for(settings), settings))
    if answer is None or isinstance(answer, Credential):
        return answer
    pytest.fail(
        f"nim_provide_credential answers {type(answer).__name__}, expected a credential of nim_core.types or None"
    )


def _implementation(info: PluginInfo) -> tuple[pluggy.PluginManager, pluggy.HookImpl]:
    """Return the plugin's hook, loaded anew and alone."""
    manager = make_manager()
    load_plugins(manager, discover([importlib.metadata.distribution(info.distribution)]), frozenset())
    found = [it for it in getattr(manager.hook, _HOOK).get_hookimpls() if it.plugin_name == info.name]
    if not found:
        pytest.fail("the plugin provides no credentials: it has no function nim_provide_credential with @hookimpl")
    return manager, found[0]


def _request(case: CredentialCase, registry: Registry, settings: Settings) -> CredentialRequest:
    uri = None if case.uri is None else registry.parse_uri(case.uri)
    variables = settings.read(registry.declared_variables)
    return CredentialRequest(source=case.source, endpoint=case.endpoint, uri=uri, variables=variables)


def _brought(info: PluginInfo) -> set[str]:
    """Return the names of what the plugin brings that may ask for credentials."""
    return {*(it.name for it in info.sources), *(it.name for it in info.sinks), *(it.name for it in info.backends)}


def _revealed(answer: Credential) -> set[str]:
    """Return what the secrets of an answer are."""
    values = attrs.asdict(answer, recurse=False).values()
    return {value.reveal() for value in values if isinstance(value, Secret)}


def _check_hidden(case: CredentialCase, text: str, where: str) -> None:
    if any(secret in text for secret in case.secrets):
        pytest.fail(f"{where} shows a secret; keep it in Secret, and name its origin instead", pytrace=False)
