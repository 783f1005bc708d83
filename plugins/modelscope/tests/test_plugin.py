"""What the plugin declares, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

from nim_source_modelscope import plugin

from nim_core.hookspecs import PROJECT_NAME
from nim_core.types import CachePlacement, UriStyle


def test_declares_one_source():
    [spec] = plugin.nim_register_sources()
    assert (spec.name, spec.schemes, spec.uri_style) == ("modelscope", ("modelscope",), UriStyle.REPOSITORY)
    assert (spec.capabilities.overridable, spec.capabilities.pins_revisions) == (False, False)


def test_declares_its_variables_in_priority_order():
    [spec] = plugin.nim_register_sources()
    assert [(variable.name, variable.kind, variable.secret) for variable in spec.environment] == [
        ("MODELSCOPE_API_TOKEN", "text", True),
        ("MODELSCOPE_ENDPOINT", "url", False),
        ("MODELSCOPE_DOMAIN", "url", False),
        ("MODELSCOPE_CACHE", "path", False),
    ]


def test_answers_for_credentials_last():
    assert getattr(plugin.nim_provide_credential, f"{PROJECT_NAME}_impl")["trylast"] is True


def test_source_places_its_files_in_the_cache(source):
    assert isinstance(source, CachePlacement)


def test_neither_the_plugin_nor_a_new_source_imports_the_vendors_library(tmp_path):
    code = """
import sys
from nim_source_modelscope.plugin import nim_register_sources
heavy = {"httpx", "requests", "modelscope_hub"}
assert not heavy & set(sys.modules)
from nim_core.testing.harness import repository_uri, source_context
[spec] = nim_register_sources()
with source_context(spec, {}) as context:
    spec.factory(context).cache_key(repository_uri("modelscope://a/b"), None)
assert "modelscope_hub" not in sys.modules
import modelscope_hub
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={"HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
