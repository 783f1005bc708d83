"""Model URIs: every text that parses is written again to the letter, and what is refused says how to put it right."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nim_core.errors import InvalidUriError, NoPluginForSchemeError
from nim_core.known_schemes import KNOWN_SCHEMES
from nim_core.types import ModelUri, UriStyle
from nim_core.uris import LOCAL_SCHEME_SENTENCE, no_plugin_error, parse_uri, scheme_of, without_file

STYLES = {"repo": UriStyle.REPOSITORY, "obj": UriStyle.OBJECT, "path": UriStyle.PATH, "x+y.z-1": UriStyle.OBJECT}

unhurried = settings(deadline=None)

TEXT = st.characters(exclude_categories=("Cc", "Cs"))
LITERAL = st.text(TEXT, min_size=1, max_size=30)
SAFE_NAME = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\"), min_size=1, max_size=20
).filter(lambda name: name.strip(".") != "" and name.upper().split(".")[0] not in RESERVED and name[1:2] != ":")
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in range(10))}
FILE = st.lists(SAFE_NAME, min_size=1, max_size=4).map("/".join)
PLAIN_NAME = st.from_regex(r"[a-z0-9_][A-Za-z0-9._-]{0,15}", fullmatch=True).filter(
    lambda name: name.upper().split(".")[0] not in RESERVED
)
REVISION = st.from_regex(r"[A-Za-z0-9._/ %#+-]{1,20}", fullmatch=True)


def parse(text):
    return parse_uri(text, STYLES)


@st.composite
def repository_uris(draw):
    text = "repo://" + "/".join(draw(st.lists(PLAIN_NAME, min_size=1, max_size=3)))
    if draw(st.booleans()):
        text += ":" + draw(REVISION)
    if draw(st.booleans()):
        text += "?file=" + draw(FILE)
    return text


OBJECT_URIS = LITERAL.filter(lambda text: not text.startswith("/")).map("obj://{}".format)
PATH_URIS = st.builds(
    "path:///{}{}".format,
    LITERAL.filter(lambda text: "?" not in text),
    st.one_of(st.just(""), FILE.map("?file={}".format)),
)


class TestRoundTrip:
    @unhurried
    @given(st.one_of(repository_uris(), OBJECT_URIS, PATH_URIS))
    def test_a_uri_is_written_again_to_the_letter(self, text):
        assert str(parse(text)) == text

    @unhurried
    @given(st.one_of(repository_uris(), OBJECT_URIS, PATH_URIS))
    def test_parsing_what_was_written_gives_the_same(self, text):
        assert parse(str(parse(text))) == parse(text)

    @unhurried
    @given(LITERAL)
    def test_a_key_is_literal(self, key):
        assert parse(f"obj://bucket/{key}").location == f"bucket/{key}"

    @unhurried
    @given(FILE)
    def test_a_file_is_literal(self, file):
        assert parse(f"repo://a/b:r?file={file}") == ModelUri(
            scheme="repo", location="a/b", revision="r", file=file, style=UriStyle.REPOSITORY
        )

    @unhurried
    @given(st.text(max_size=40))
    def test_any_text_parses_or_is_refused(self, text):
        for scheme in STYLES:
            with contextlib.suppress(InvalidUriError):
                parse(f"{scheme}://{text}")

    @unhurried
    @given(st.one_of(repository_uris(), PATH_URIS))
    def test_without_file_is_the_whole(self, text):
        assert str(without_file(parse(text))) == text.partition("?file=")[0]


@pytest.mark.parametrize(
    ("text", "location", "revision", "file"),
    [
        ("repo://org/model", "org/model", None, None),
        ("repo://org/team/model:hf-1", "org/team/model", "hf-1", None),
        ("repo://org/model:refs/pr/1?file=a/b.txt", "org/model", "refs/pr/1", "a/b.txt"),
        ("repo://org/model?file=ab:c?d#e%20f g", "org/model", None, "ab:c?d#e%20f g"),
        ("obj://bucket", "bucket", None, None),
        ("obj://bucket/", "bucket/", None, None),
        ("obj://bucket/a%20b?file=c#d e//f", "bucket/a%20b?file=c#d e//f", None, None),
        ("obj://host:8080/x", "host:8080/x", None, None),
        ("x+y.z-1://bucket/k", "bucket/k", None, None),
        ("path:///mnt/models/x", "/mnt/models/x", None, None),
        ("path:///mnt/a:b %#?file=c?d", "/mnt/a:b %#", None, "c?d"),
    ],
)
def test_the_parts(text, location, revision, file):
    uri = parse(text)

    assert (uri.location, uri.revision, uri.file) == (location, revision, file)


def test_only_the_case_of_the_scheme_is_normalised():
    assert str(parse("OBJ://Bucket/KEY")) == "obj://Bucket/KEY"


class TestRefusals:
    @pytest.mark.parametrize(
        "text", ["file:///a", "FILE:///a", "/a/path", "path", "", "C:\\models", "s3:bucket", " obj://b"]
    )
    def test_paths_are_told_the_scheme_for_them(self, text):
        with pytest.raises(InvalidUriError) as caught:
            parse(text)

        assert caught.value.hint == LOCAL_SCHEME_SENTENCE
        assert "local:///" in LOCAL_SCHEME_SENTENCE

    @pytest.mark.parametrize("scheme", ["repo", "obj", "path"])
    @pytest.mark.parametrize("character", ["\x00", "\n", "\r", "\t", "\x1b", "\x7f", "\x9b", "\ud800"])
    def test_control_characters(self, scheme, character):
        with pytest.raises(InvalidUriError, match="control character in URI") as caught:
            parse(f"{scheme}:///a{character}b")

        assert character not in caught.value.message

    @pytest.mark.parametrize(
        "text",
        [
            "repo://",
            "obj://",
            "path://",
            "obj:///key",
            "path://relative",
            "repo:///b",
            "repo://a/",
            "repo://a//b",
            "repo://a/../b",
            "repo://../b",
            "repo://a/b:",
            "repo://a/b:1:2",
            "repo://a/b:?file=x",
            "repo://user@host/x",
            "repo://user:password@host/x",
            "repo://a\\b",
        ],
    )
    def test_what_the_grammar_does_not_allow(self, text):
        with pytest.raises(InvalidUriError):
            parse(text)

    @pytest.mark.parametrize("scheme", ["repo://a/b", "path:///a"])
    @pytest.mark.parametrize(
        "file", ["", "..", "../x", "a/../../x", "a/..", "/etc/passwd", "a//b", "./a", "a/.", "a/", "C:/x", "a\\b"]
    )
    def test_files_that_climb(self, scheme, file):
        with pytest.raises(InvalidUriError, match="unsafe file path"):
            parse(f"{scheme}?file={file}")

    @pytest.mark.parametrize("query", ["", "files=x", "revision=main", "FILE=x", "x=1&file=y"])
    def test_other_queries(self, query):
        with pytest.raises(InvalidUriError, match=r"unknown query in URI: repo://a/b\?") as caught:
            parse(f"repo://a/b?{query}")

        assert "?file=" in caught.value.hint

    @pytest.mark.parametrize(
        "text",
        [
            "repo://user:pass-word@host/x",
            "repo://user:pass-word@host/x:r",
            "repo://user:pass-word@host//x?file=y",
            "repo://user@host/x?token=pass-word",
            "file://user:pass-word@host/x",
            "obj://user:pass-word@host/\n",
            "1bad://user:pass-word@host/",
        ],
    )
    def test_no_password_in_the_message(self, text):
        with pytest.raises(InvalidUriError) as caught:
            parse(text)

        assert "pass-word" not in f"{caught.value.message} {caught.value.hint}"


class TestUnknownScheme:
    @pytest.mark.parametrize(("scheme", "distribution"), sorted(KNOWN_SCHEMES.items()))
    def test_a_known_one_names_the_distribution_to_install(self, scheme, distribution):
        with pytest.raises(NoPluginForSchemeError, match=f"no installed plugin for scheme: {scheme}://") as caught:
            parse(f"{scheme.upper()}://a/b")

        assert caught.value.hint == f"pip install {distribution}"

    def test_another_one_points_to_the_list(self):
        assert "nim-llm plugins list" in no_plugin_error("martian").hint


def test_the_scheme_alone():
    assert scheme_of("HTTPS://host/x") == "https"
