"""Manifest text."""

from __future__ import annotations

import re

import yaml

from nim_core.testing.corpus import sample_corpus
from nim_core.testing.manifests import DEFAULT_TAGS, manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel


def test_one_profile_per_model_and_tags():
    models = [NgcModel(files=sample_corpus().files, version=version) for version in ("1", "2")]
    tags = [DEFAULT_TAGS, {**DEFAULT_TAGS, "tp": "2"}]
    manifest = yaml.safe_load(manifest_for(*models, tags=tags))
    profiles = manifest["profiles"]
    assert (manifest["schema_version"], manifest["profile_selection_criteria"]) == ("2.0.0", "default")
    assert [profile["id"] for profile in profiles] == [profile_id(model, entry) for model in models for entry in tags]
    assert all(re.fullmatch("[0-9a-f]{64}", profile["id"]) for profile in profiles)
    assert len({profile["id"] for profile in profiles}) == 4
    assert [profile["tags"] for profile in profiles] == tags * 2


def test_files_have_uri_and_checksum():
    model = NgcModel(files=sample_corpus().files)
    [profile] = yaml.safe_load(manifest_for(model))["profiles"]
    assert profile["workspace"]["files"] == {
        path: {"uri": f"ngc://nim/meta/sample-llm:hf-1.0+chk1?file={path}", "checksum": str(content.digest("blake3"))}
        for path, content in model.files.items()
    }


def test_checksums_can_be_left_out_or_others():
    model = NgcModel(files=sample_corpus().files)
    [without] = yaml.safe_load(manifest_for(model, algorithm=None))["profiles"]
    [other] = yaml.safe_load(manifest_for(model, algorithm="sha256"))["profiles"]
    assert without["workspace"]["files"]["LICENSE"] == {"uri": model.uri("LICENSE")}
    assert other["workspace"]["files"]["LICENSE"]["checksum"].startswith("sha256:")
