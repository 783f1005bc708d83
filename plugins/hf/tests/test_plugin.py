"""What the plugin declares, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

from nim_source_hf import plugin
from nim_source_hf.credentials import ENVIRONMENT

from nim_core.hookspecs import PROJECT_NAME
from nim_core.types import BearerToken, CachePlacement, CredentialRequest, UriStyle, Variables


def request(source, **environment):
    return CredentialRequest(
        source=source, endpoint="https://hub.example.test", variables=Variables(ENVIRONMENT, environment)
    )


def test_declares_one_source():
    [spec] = plugin.nim_register_sources()
    assert (spec.name, spec.schemes, spec.uri_style) == ("hf", ("hf",), UriStyle.REPOSITORY)
    assert (spec.capabilities.overridable, spec.capabilities.pins_revisions) == (False, True)


def test_declares_its_variables_in_priority_order():
    [spec] = plugin.nim_register_sources()
    assert [(variable.name, variable.kind, variable.secret) for variable in spec.environment] == [
        ("HF_TOKEN", "text", True),
        ("HUGGING_FACE_HUB_TOKEN", "text", True),
        ("HF_TOKEN_PATH", "path", False),
        ("HF_ENDPOINT", "url", False),
        ("HF_HUB_CACHE", "path", False),
        ("HUGGINGFACE_HUB_CACHE", "path", False),
        ("HF_HOME", "path", False),
        ("HF_HUB_OFFLINE", "flag", False),
        ("TRANSFORMERS_OFFLINE", "flag", False),
    ]


def test_credential_hook_answers_for_hf_only_and_last():
    assert plugin.nim_provide_credential(request("ngc", HF_TOKEN="hf_1")) is None
    found = plugin.nim_provide_credential(request("hf", HF_TOKEN="hf_1"))
    assert found == BearerToken(token="hf_1", origin="HF_TOKEN")
    assert getattr(plugin.nim_provide_credential, f"{PROJECT_NAME}_impl")["trylast"]


def test_says_where_files_live(source):
    assert isinstance(source, CachePlacement)


def test_a_token_in_a_variable_spares_the_vendor_library():
    program = (
        "import sys; from nim_source_hf.credentials import *\n"
        "find_credential(Variables(ENVIRONMENT, {'HF_TOKEN': 'hf_1'})); print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
