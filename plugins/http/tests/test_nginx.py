"""A real web server: nginx with ranges, without them, behind a password, and with names that hold percent signs."""

import contextlib
import os

import pytest
from nim_source_http.plugin import nim_provide_credential, nim_register_sources

from nim_core.errors import AuthenticationError, NotFoundError, RateLimitedError, TransientError
from nim_core.settings import Settings
from nim_core.testing.nginx import AUTH, USERINFO, nginx
from nim_core.transfer.control import control_client
from nim_core.transfer.network import network_config
from nim_core.transfer.retry import RetryPolicy
from nim_core.types import CredentialRequest, RemoteFile, Secret, SourceContext, UriStyle
from nim_core.uris import parse_uri

DATA = b"0123456789" * 1000
FLAT = "nim%2Fmeta%2Fllama%3Ahf%3Ffile%3Dconfig.json"

RULES = (
    "location /whole/ { alias FILES/; max_ranges 0; }",
    "location /get-only/ { alias FILES/; if ($request_method = HEAD) { return 405; } }",
    f"location /private/ {{ alias FILES/; {AUTH} }}",
    "location /moved/ { rewrite ^/moved(.*)$ $1 redirect; }",
    "location /limited/ { return 429; add_header Retry-After 3600 always; }",
    "location /broken/ { return 503; }",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name in ("model.bin", FLAT):
        (folder / name).write_bytes(DATA)
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(nginx(folder, rules=RULES)).url
        except FileNotFoundError as exc:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(exc))


@pytest.fixture
def source(tmp_path):
    """The source, signing in with what the plugin itself finds in netrc."""
    (spec,) = nim_register_sources()
    variables = Settings({"NETRC": str(tmp_path / "netrc")}).read(spec.environment)
    (tmp_path / "netrc").touch()

    def credential(endpoint, uri):
        return nim_provide_credential(CredentialRequest(source="http", endpoint=endpoint, uri=uri, variables=variables))

    with control_client(network_config(Settings({})), RetryPolicy(retries=1, base_seconds=0.0)) as client:
        made = spec.factory(SourceContext(http=client, variables=variables, credential=credential))
        made.netrc = tmp_path / "netrc"
        yield made


def uri_of(text):
    return parse_uri(text, {"http": UriStyle.OBJECT})


@pytest.mark.parametrize(
    ("folder", "ranges"),
    [("", True), ("/get-only", True), ("/moved", True), ("/whole", None)],
)
def test_a_file_is_found_with_its_size_and_validator(source, server, folder, ranges):
    uri = uri_of(f"{server}{folder}/model.bin")
    (file,) = source.list_files(uri).files
    located = source.locate(uri, file)
    assert file == RemoteFile(path="model.bin", size=len(DATA))
    assert located.validator.startswith('"')
    assert located.ranges is ranges


def test_a_flat_name_with_percent_signs_needs_its_own_percents_encoded(source, server):
    once, twice = f"{server}/{FLAT}", f"{server}/{FLAT.replace('%', '%25')}"
    assert source.list_files(uri_of(twice)).files == (RemoteFile(path=FLAT, size=len(DATA)),)
    with pytest.raises(NotFoundError):
        source.list_files(uri_of(once))


def test_a_password_is_taken_from_the_uri_or_from_netrc(source, server):
    uri = uri_of(f"{server}/private/model.bin")
    with pytest.raises(AuthenticationError):
        source.list_files(uri)
    assert source.list_files(uri_of(str(uri).replace("://", f"://{USERINFO}"))).files[0].size == len(DATA)
    source.netrc.write_text("machine 127.0.0.1 login models password p@ss:w/rd\n")
    (file,) = source.list_files(uri).files
    assert source.locate(uri, file).headers == (("Authorization", Secret("Basic bW9kZWxzOnBAc3M6dy9yZA==")),)


@pytest.mark.parametrize(
    ("path", "error"), [("/missing", NotFoundError), ("/limited/x", RateLimitedError), ("/broken/x", TransientError)]
)
def test_its_refusals_are_understood(source, server, path, error):
    with pytest.raises(error):
        source.list_files(uri_of(f"{server}{path}"))
