"""Credential plugins that are broken on purpose: each fails the test that is meant for it, and no other."""

from __future__ import annotations

from textwrap import indent

import pytest

from tests.testing.conformance.broken_session import Failures, run_broken

pytestmark = pytest.mark.timeout(600)

PLUGIN = '''
import json
from pathlib import Path
from attrs import evolve
from nim_core import hookimpl
from nim_core.errors import AuthenticationError
from nim_core.types import Anonymous, BearerToken, EnvVar

NAME = "{name}"
FOLDER = EnvVar(name="DRAWER_{name}", summary="folder of tokens", kind="path")

@hookimpl
def nim_register_environment():
    return [FOLDER]

def found(request):
    """The token in the file that is called like the endpoint's host."""
    if request.source != NAME or not request.variables.is_set(FOLDER.name):
        return None
    file = Path(request.variables.text(FOLDER.name), request.endpoint.partition("://")[2])
    try:
        return BearerToken(token=json.loads(file.read_text()), origin=str(file))
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise AuthenticationError(f"cannot be read: {{file}}", hint="write the token there, in quotes") from None

@hookimpl{options}
def nim_provide_credential(request):
{broken}
'''
SUITES = """
import json
import pytest
from nim_core.testing.conformance import CredentialCase, CredentialSuite
from nim_core.types import BearerToken

TOKEN = "drawer-token-of-the-kit"

class Drawer(CredentialSuite):
    @pytest.fixture
    def case(self, tmp_path):
        for name, text in (("right", json.dumps(TOKEN)), ("broken", TOKEN)):
            (tmp_path / name).mkdir()
            (tmp_path / name / f"{self.plugin}.example").write_text(text)
        variable = f"DRAWER_{self.plugin}"
        return CredentialCase(
            source=self.plugin,
            endpoint=f"https://{self.plugin}.example",
            expects=BearerToken,
            secrets=(TOKEN,),
            environment={variable: str(tmp_path / "right")},
            broken={variable: str(tmp_path / "broken")},
            foreign_endpoint="https://other.example",
        )
"""
BROKEN = {
    "nothing": ("return found(request)", "", (), ""),
    "anonymous": (
        "return found(request) or (Anonymous() if request.endpoint == 'https://anonymous.example' else None)",
        "",
        ("test_it_has_nothing",),
        "return None, or no other plugin will be asked",
    ),
    "last": (
        "return found(request)",
        "(trylast=True)",
        ("test_it_is_asked_at_its_turn",),
        "leave trylast out of @hookimpl",
    ),
    "raw": (
        """
answer = found(request)
return evolve(answer, token=answer.token.reveal() + "\\\\n") if answer else None
""",
        "",
        ("test_the_credential_is_found",),
        "strip blanks and line ends",
    ),
    "generous": (
        'return found(evolve(request, endpoint="https://generous.example"))',
        "",
        ("test_a_strangers_endpoint_gets_nothing",),
        "https://other.example gets what is for https://generous.example; compare request.endpoint",
    ),
    "hides": (
        """
try:
    return found(request)
except AuthenticationError:
    return None
""",
        "",
        ("test_what_cannot_be_read_is_an_error",),
        "where its storage is broken; raise AuthenticationError",
    ),
    "prints": (
        """
print("looking")
return found(request)
""",
        "",
        ("test_secrets_are_not_shown",),
        "asking for a credential prints something",
    ),
    "shows": (
        """
answer = found(request)
return evolve(answer, origin=answer.token.reveal()) if answer else None
""",
        "",
        ("test_secrets_are_not_shown",),
        "the answer, shown as text, shows a secret",
    ),
    "milliseconds": (
        """
answer = found(request)
return evolve(answer, expires_at=4.1e12) if answer else None
""",
        "",
        ("test_when_it_expires_is_a_unix_time",),
        "seconds since 1970",
    ),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> Failures:
    plugins = {
        name: PLUGIN.format(name=name, options=options, broken=indent(text.strip(), "    "))
        for name, (text, options, _, _) in BROKEN.items()
    }
    classes = "".join(f'class Test{name}(Drawer):\n    plugin = "{name}"\n\n' for name in BROKEN)
    return run_broken(tmp_path_factory.mktemp("credentials"), plugins, SUITES + classes)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_credential_plugin_fails_the_test_for_it(failures, name):
    _, _, tests, message = BROKEN[name]
    assert sorted(failures[name]) == sorted(tests), failures[name]
    for test in tests:
        assert message in failures[name][test]
