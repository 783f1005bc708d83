from __future__ import annotations

import pytest
from nim_source_oci.refs import OciRef

from nim_core.errors import InvalidUriError
from nim_core.testing.harness import object_uri

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/a/b:v1", ("ghcr.io", "a/b", "v1", "v1", None)),
        ("localhost:5000/model:latest", ("localhost:5000", "model", "latest", "latest", None)),
        ("[::1]:5000/model:1", ("[::1]:5000", "model", "1", "1", None)),
        ("GHCR.io/a/b:V1", ("ghcr.io", "a/b", "V1", "V1", None)),
        ("docker.io/library/x:1", ("registry-1.docker.io", "library/x", "1", "1", None)),
        (f"h.example/a@sha256:{HEX}", ("h.example", "a", f"sha256:{HEX}", None, None)),
        (f"h.example/a:v1@sha256:{HEX}/x", ("h.example", "a", f"sha256:{HEX}", "v1", "x")),
        ("h.example/a.b/c__d/e--f:v/sub/x:y@z.json", ("h.example", "a.b/c__d/e--f", "v", "v", "sub/x:y@z.json")),
    ],
)
def test_forms(text, expected):
    ref = OciRef.parse(object_uri(f"oci://{text}"))
    assert (ref.host, ref.name, ref.reference, ref.tag, ref.file) == expected


@pytest.mark.parametrize(
    "text",
    [
        "h.example",
        "h.example/",
        "h.example/a",
        "h.example/a/config.json",
        "h.example/A:v1",
        "h.example/a:",
        "h.example/a:v1/",
        "h.example/a@sha256:123",
        f"h.example/a@sha512:{HEX}{HEX}",
        "h.example/a//b:v1",
        "user:password@h.example/a:v1",
        f"h.example/a:{'v' * 129}",
        "h.example/a:v1/../x",
        "h.example/a:v1//x",
    ],
)
def test_what_is_no_artifact(text):
    with pytest.raises(InvalidUriError) as caught:
        OciRef.parse(object_uri(f"oci://{text}"))
    assert "password" not in caught.value.message


def test_no_two_repositories_share_a_place_in_the_cache():
    names = ["h.example/a/b:v", "h.example/a--b:v", "h.example:5000/a/b:v", "h.example/x/a/b:v", "g.example/a/b:v"]
    keys = [OciRef.parse(object_uri(f"oci://{name}")).cache_key(None) for name in names]
    assert len({key.repo for key in keys}) == len(names)


def test_a_file_is_in_the_snapshot_of_its_artifact():
    pinned = f"sha256:{HEX}"
    whole, one = (OciRef.parse(object_uri(f"oci://h.example/a:v1{rest}")).cache_key(pinned) for rest in ("", "/x/y"))
    assert whole == one
    assert (whole.snapshot, whole.refs) == (f"sha256-{HEX}", ("v1",))
