"""Files, digests and where bytes are."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nim_core.errors import ConfigError, InvalidUriError
from nim_core.types import DIGEST_HEX_LENGTHS, CacheKey, Digest, HttpObject, RemoteFile, Secret, check_relative_path

ALGORITHMS = sorted(DIGEST_HEX_LENGTHS)


class TestDigest:
    @given(st.sampled_from(ALGORITHMS), st.data())
    def test_round_trip(self, algorithm, data):
        length = DIGEST_HEX_LENGTHS[algorithm]
        text = f"{algorithm}:{data.draw(st.text('0123456789abcdef', min_size=length, max_size=length))}"

        digest = Digest.parse(text)

        assert str(digest) == text
        assert Digest.from_base64(algorithm, base64.b64encode(bytes.fromhex(digest.value)).decode()) == digest

    def test_case_does_not_matter(self):
        assert Digest.parse(f"md5:{'AB' * 16}") == Digest("md5", "ab" * 16)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not an algorithm:hex digest"),
            ("ab" * 32, "not an algorithm:hex digest"),
            ("sha256:", "not a sha256 digest of 64 hex digits"),
            ("sha256:" + "a" * 63, "not a sha256 digest of 64 hex digits"),
            ("sha256:" + "a" * 65, "not a sha256 digest of 64 hex digits"),
            ("sha256:" + "g" * 64, "not a sha256 digest"),
            ("sha256:" + "a" * 63 + "\n", "not a sha256 digest"),
            ("sha256:" + "a" * 64 + "\n", "not a sha256 digest"),
            ("sha256:" + "\u0663" * 64, "not a sha256 digest"),
            ("SHA256:" + "a" * 64, "unknown digest algorithm: 'SHA256'"),
            ("sha512:" + "a" * 128, "unknown digest algorithm: 'sha512'"),
            ("md4:" + "a" * 32, "unknown digest algorithm: 'md4'"),
        ],
    )
    def test_what_is_no_digest(self, text, message):
        with pytest.raises(ConfigError, match=message):
            Digest.parse(text)

    @pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "AAAAA", "\u00e9"])
    def test_what_is_no_base64_digest(self, text):
        with pytest.raises(ConfigError):
            Digest.from_base64("crc32c", text)


SAFE = [
    "a",
    "a/b.txt",
    ".hidden",
    "..a",
    "a..",
    "...",
    "a b/c%20d",
    "a?b#c&d=e",
    "~",
    "-rf",
    "ab:c",
    "dir/c:x",
    "\u00e9\u4e2d/\U0001f600",
    "conx",
    "xcon/console.log",
    "com",
    "com10",
    "n" * 255,
    "/".join("d" * 9),
]

UNSAFE = [
    ("", "is empty"),
    ("/", "is absolute"),
    ("/a", "is absolute"),
    ("//a", "is absolute"),
    ("C:/a", "is absolute"),
    ("c:", "is absolute"),
    ("c:relative", "is absolute"),
    ("..", "component '..'"),
    ("../a", "component '..'"),
    ("a/../b", "component '..'"),
    ("a/..", "component '..'"),
    (".", "component '.'"),
    ("a/./b", "component '.'"),
    ("a//b", "component ''"),
    ("a/", "component ''"),
    ("a\\b", "backslash or control"),
    ("..\\a", "backslash or control"),
    ("a\x00b", "backslash or control"),
    ("a\nb", "backslash or control"),
    ("a\x1b[31m", "backslash or control"),
    ("a\x7f", "backslash or control"),
    ("a\x9b31m", "backslash or control"),
    ("a\ud800", "backslash or control"),
    ("con", "reserved name"),
    ("a/NUL.txt/b", "reserved name"),
    ("Com1", "reserved name"),
    ("n" * 256, "more than 255 bytes"),
    ("\u4e2d" * 86, "more than 255 bytes"),
]


class TestRelativePath:
    @pytest.mark.parametrize("path", SAFE)
    def test_safe(self, path):
        assert check_relative_path(path) == path

    @pytest.mark.parametrize(("path", "reason"), UNSAFE)
    def test_unsafe(self, path, reason):
        with pytest.raises(InvalidUriError, match="unsafe file path") as caught:
            check_relative_path(path)

        assert reason in caught.value.message
        assert caught.value.message.isprintable()

    @settings(deadline=None)
    @given(st.text(max_size=60))
    def test_what_passes_stays_beneath_its_folder(self, path):
        try:
            check_relative_path(path)
        except InvalidUriError:
            return
        assert all(name not in {"", ".", ".."} for name in path.split("/"))
        assert not set(path) & {"\x00", "\n", "\\"}
        path.encode("utf-8")

    @pytest.mark.parametrize(
        "make",
        [
            lambda path: RemoteFile(path=path),
            lambda path: RemoteFile(path="a", blob_name=path),
            lambda path: CacheKey(root="r", repo=path, snapshot="s"),
            lambda path: CacheKey(root="r", repo="r", snapshot=path),
            lambda path: CacheKey(root="r", repo="r", snapshot="s", refs=("main", path)),
        ],
    )
    def test_no_record_takes_an_unsafe_name(self, make):
        with pytest.raises(InvalidUriError, match="unsafe file path"):
            make("../x")


def test_a_size_is_not_negative():
    assert RemoteFile(path="a", size=0).size == 0
    with pytest.raises(ValueError, match="size"):
        RemoteFile(path="a", size=-1)


@pytest.mark.parametrize(
    "headers", [{"Authorization": "key"}, {"Authorization": Secret("key")}, (("Authorization", "key"),)]
)
def test_urls_and_headers_are_secrets(headers):
    made = HttpObject(url="https://h/x?signature=key", headers=headers)

    assert made.headers == (("Authorization", Secret("key")),)
    assert made.url.reveal() == "https://h/x?signature=key"
    assert "key" not in repr(made)
