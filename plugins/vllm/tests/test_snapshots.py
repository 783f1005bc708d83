"""What is known of each version, and which version is taken for one that is not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from nim_backend_vllm.snapshots import flags_of
from packaging.version import Version

from nim_core.types import Option


@dataclass
class Case:
    version: str | None
    taken: str
    exact: bool


@pytest.mark.parametrize(
    "case",
    [
        Case("0.33.0", "0.33.0", exact=True),
        Case("0.33.2+cu130", "0.33.0", exact=True),
        Case("0.32.0+cpu", "0.32.0", exact=True),
        Case("0.34.0", "0.33.0", exact=False),
        Case("0.34.0.dev5+g1234567", "0.33.0", exact=False),
        Case("1.0", "0.33.0", exact=False),
        Case("0.20.2", "0.32.0", exact=False),
        Case(None, "0.33.0", exact=False),
    ],
    ids=lambda case: str(case.version),
)
def test_the_nearest_version_that_is_not_newer(case: Case):
    flags = flags_of(Version(case.version) if case.version else None)
    assert (str(flags.version), flags.exact) == (case.taken, case.exact)


def test_options_are_read_as_vllm_reads_them():
    options = flags_of(Version("0.33.0")).options
    assert len(options) == 320
    assert options["tensor-parallel-size"] == Option(name="tensor-parallel-size", aliases=("-tp",), kind="integer")
    assert options["gpu-memory-utilization"].aliases == ("--device-memory-utilization",)
    assert options["gpu-memory-utilization"].kind == "number"
    assert options["max-model-len"].kind == "text"
    assert options["dtype"].choices == ("auto", "bfloat16", "float", "float16", "float32", "half")
    assert options["served-model-name"].many
    assert options["hf-token"].optional
    assert options["compilation-config"] == Option(name="compilation-config", aliases=("-cc",), kind="json")
    assert options["hf-overrides"].kind == "json"
    assert options["pt-load-map-location"].kind == "text"
    assert options["allowed-origins"].kind == "text"
    assert options["optimization-level"].aliases == ("-O",)
    assert options["enable-prefix-caching"].negations == ("--disable-prefix-caching",)
    assert options["disable-fastapi-docs"].negations == ("--enable-fastapi-docs",)


def test_versions_differ():
    old, new = flags_of(Version("0.32.0")).options, flags_of(Version("0.33.0")).options
    assert old["enable-prefix-caching"].negations == ()
    assert "reasoning-effort-map" in new
    assert "reasoning-effort-map" not in old


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0"])
def test_secrets_are_told(version):
    options = flags_of(Version(version)).options
    assert [name for name, option in options.items() if option.secret] == ["api-key", "hf-token"]
