"""A real web server: nginx with ranges, without them, behind a password, and with names that hold percent signs."""

import contextlib
import os
import shutil
import socket
import subprocess
import time

import pytest
from nim_source_http.plugin import nim_provide_credential, nim_register_sources

from nim_core.errors import AuthenticationError, NotFoundError, RateLimitedError, TransientError
from nim_core.settings import Settings
from nim_core.transfer.control import control_client
from nim_core.transfer.network import network_config
from nim_core.transfer.retry import RetryPolicy
from nim_core.types import CredentialRequest, RemoteFile, Secret, SourceContext, UriStyle
from nim_core.uris import parse_uri

DATA = b"0123456789" * 1000
FLAT = "nim%2Fmeta%2Fllama%3Ahf%3Ffile%3Dconfig.json"

CONFIG = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
user {user};
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/files;
    location /whole/ {{ alias {folder}/files/; max_ranges 0; }}
    location /get-only/ {{ alias {folder}/files/; if ($request_method = HEAD) {{ return 405; }} }}
    location /private/ {{ alias {folder}/files/; auth_basic models; auth_basic_user_file {folder}/passwords; }}
    location /moved/ {{ rewrite ^/moved(.*)$ $1 redirect; }}
    location /limited/ {{ return 429; add_header Retry-After 3600 always; }}
    location /broken/ {{ return 503; }}
  }}
}}
"""


def nginx_program():
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("nginx is not installed: apt-get install nginx-light")
    if found is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    executable = nginx_program()
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files").mkdir()
    for name in ("model.bin", FLAT):
        (folder / "files" / name).write_bytes(DATA)
    (folder / "passwords").write_text("me:{PLAIN}p@ss\n")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    user = "root" if os.geteuid() == 0 else "nobody"
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, user=user))
    process = subprocess.Popen([executable, "-c", folder / "nginx.conf", "-e", folder / "start.log"])
    try:
        wait_for(port, process, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port, process, folder):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    pytest.fail(f"nginx did not start: {(folder / 'start.log').read_text()}")


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
    assert source.list_files(uri_of(str(uri).replace("://", "://me:p%40ss@"))).files[0].size == len(DATA)
    source.netrc.write_text("machine 127.0.0.1 login me password p@ss\n")
    (file,) = source.list_files(uri).files
    assert source.locate(uri, file).headers == (("Authorization", Secret("Basic bWU6cEBzcw==")),)


@pytest.mark.parametrize(
    ("path", "error"), [("/missing", NotFoundError), ("/limited/x", RateLimitedError), ("/broken/x", TransientError)]
)
def test_its_refusals_are_understood(source, server, path, error):
    with pytest.raises(error):
        source.list_files(uri_of(f"{server}{path}"))
