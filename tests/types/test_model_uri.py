"""How a model URI shows itself."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.types import ModelUri, UriStyle


def uri(location, **options):
    return ModelUri(scheme="x", location=location, style=UriStyle.OBJECT, **options)


@pytest.mark.parametrize(
    ("location", "display"),
    [
        ("host/x", "x://host/x"),
        ("user@host/x", "x://host/x"),
        ("user:pass-word@host:8080/x@y", "x://host:8080/x@y"),
        ("user:pass@word@host/x", "x://host/x"),
        ("user:pass-word@host", "x://host"),
        ("bucket/a@b", "x://bucket/a@b"),
        ("/home/me@work/x", "x:///home/me@work/x"),
    ],
)
def test_display_has_no_userinfo(location, display):
    assert uri(location).display == display
    assert repr(uri(location)) == f"ModelUri('{display}')"


@given(st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), min_size=1))
def test_no_password_is_displayed_whatever_is_in_it(password):
    assert uri(f"user:{password}@host/key").display == "x://host/key"


def test_text_is_all_of_it():
    assert str(uri("user:pass-word@host/x")) == "x://user:pass-word@host/x"
    assert str(ModelUri(scheme="x", location="a/b", revision="r", file="f g")) == "x://a/b:r?file=f g"


def test_it_is_a_value():
    made = uri("a/b")

    assert made == uri("a/b")
    assert {made: 1}[uri("a/b")] == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.location = "c"
