"""Models' names in requests and answers."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.serving.naming import EventLines, asked_for, listed, rename, with_model

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("model"), inner),
    max_leaves=20,
)


def renamed(value: object, name: str) -> object:
    if isinstance(value, dict):
        new = {key: renamed(inner, name) for key, inner in value.items()}
        return new | ({"model": name} if isinstance(value.get("model"), str) else {})
    return [renamed(inner, name) for inner in value] if isinstance(value, list) else value


@given(value=JSON, name=st.text(), compact=st.booleans(), ascii_only=st.booleans())
def test_text_is_renamed_as_parsing_it_would(value: object, name: str, compact: bool, ascii_only: bool) -> None:
    text = json.dumps(value, separators=(",", ":") if compact else None, ensure_ascii=ascii_only)
    assert json.loads(rename(text.encode("utf-8", "surrogatepass"), name)) == renamed(value, name)


@given(value=st.dictionaries(st.text() | st.just("model"), JSON), cuts=st.lists(st.integers(0, 400)))
def test_events_are_renamed_however_they_are_cut(value: object, cuts: list[int]) -> None:
    text = f"data: {json.dumps(value)}\n\ndata: [DONE]\n\n".encode()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    lines = EventLines("x")
    pieces = [lines.feed(text[start:end]) for start, end in pairwise(edges)]
    assert (
        b"".join([*pieces, lines.finish()])
        == f"data: {rename(json.dumps(value).encode(), 'x').decode()}\n\ndata: [DONE]\n\n".encode()
    )


def test_whole_events_do_not_wait() -> None:
    assert EventLines("x").feed(b'data: {"model": "y"}\n\n') == b'data: {"model":"x"}\n\n'


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_the_engines_business(body: bytes) -> None:
    assert asked_for(body) is None


@pytest.mark.parametrize(("body", "model"), [(b'{"model":"x"}', "x"), (b"{}", None), (b'{"model":3}', None)])
def test_the_model_asked_for(body: bytes, model: str | None) -> None:
    asked = asked_for(body)
    assert asked is not None
    assert asked.model == model


def test_another_model_and_all_else_as_it_was() -> None:
    body = b'{"model":"x","messages":[{"content":"\\ud800 \\u00e9"}],"n":1e-3,"big":123456789012345678901}'
    asked = asked_for(body)
    assert asked is not None
    assert json.loads(with_model(asked, "y")) == {**json.loads(body), "model": "y"}


def test_models_as_they_are_listed() -> None:
    assert listed(["a", "b"], 5)[1] == {"id": "b", "object": "model", "created": 5, "owned_by": "nim"}
