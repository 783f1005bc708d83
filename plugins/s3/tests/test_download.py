"""``download-to-cache`` as a user runs it, against the real server: directly, by a proxy, under a private authority."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import frozen

from nim_core.testing.corpus import Content, PatternContent, inline
from nim_core.testing.manifests import manifest_for, profile_id
from nim_core.testing.s3_server import ROLE_ARN
from nim_core.testing.squid import USERINFO, squid

DATA = b"0123456789" * 1000
MIRRORED = "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json"
BIG = PatternContent(length=(24 << 20) + 7)
KEYS = {"config.json": MIRRORED, "weights/big.bin": "big/weights.bin"}
STORE = "store.internal"


@frozen
class Model:
    """Objects of the bucket as a manifest has them, by path."""

    files: Mapping[str, Content]

    def uri(self, file=None):
        """Return the URI of one of them, or of the bucket."""
        return f"s3://models/{KEYS.get(file, '')}"


@frozen
class User:
    """Runs commands in a folder of its own."""

    folder: Path

    def run(self, *arguments, **environment):
        """Run ``download-to-cache``; nothing of the environment of the tests gets to it."""
        program = Path(sysconfig.get_path("scripts"), "download-to-cache")
        variables = {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "NIM_CACHE_PATH": str(self.folder / "cache"),
            "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **environment,
        }
        options = {"capture_output": True, "text": True, "timeout": 90}
        return subprocess.run([program, *arguments], env=variables, cwd=self.folder, check=False, **options)

    def download(self, uri, **environment):
        """Download a model; return its files' contents by path."""
        ended = self.run("--model-uri", uri, **environment)
        assert ended.returncode == 0, ended.stderr
        return self.files()

    def files(self):
        """Return what the receipts say is here."""
        receipts = [json.loads(path.read_text()) for path in (self.folder / "cache/receipts").iterdir()]
        files = [file for receipt in receipts for file in receipt["files"]]
        return {file["path"]: (self.folder / "cache" / file["blob"]).read_bytes() for file in files}


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


@pytest.fixture(scope="module")
def big(server):
    """A model of one large file, whose SHA-256 the store knows, and a mirrored one."""
    client = server.client()
    client.put_object(Bucket="models", Key="big/weights.bin", Body=BIG.data(), ChecksumAlgorithm="SHA256")
    client.put_object(Bucket="models", Key=MIRRORED, Body=DATA)


@pytest.fixture
def proxy():
    """A proxy that wants a password, and that alone knows the name of the store."""
    try:
        with squid(auth=True, hosts=[STORE]) as running:
            yield running
    except FileNotFoundError as exc:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(exc))


# ------------------------------------------------------------------------------------------------------------ directly
def test_a_model(user, server):
    files = user.download("s3://models/llama/", **server.environment(server.reader))
    assert files == {"config.json": DATA, "sub/weights.bin": DATA, "empty": b""}


def test_a_complete_model_needs_no_store(user, server):
    user.download("s3://models/llama", **server.environment())
    again = user.run("--model-uri", "s3://models/llama", "--use-cache")
    assert again.returncode == 0, again.stderr


def test_a_large_file_in_parts(user, server, big):
    assert user.download("s3://models/big/weights.bin", **server.environment()) == {"weights.bin": BIG.data()}


def test_a_session_token(user, server, big):
    environment = server.environment() | server.session()
    assert user.download("s3://models/big/", **environment) == {"weights.bin": BIG.data()}


def test_a_public_bucket(user, server):
    assert user.download("s3://public/read/", AWS_ENDPOINT_URL=server.url) == {"me.txt": DATA}


@pytest.fixture
def model():
    """A profile of two objects, one of them mirrored from another registry."""
    return Model({"config.json": inline(DATA), "weights/big.bin": BIG})


def test_a_manifest_of_objects(user, server, big, model):
    (user.folder / "manifest.yaml").write_text(manifest_for(model))
    ended = user.run("--manifest-file", "manifest.yaml", "--profiles", profile_id(model), **server.environment())
    assert ended.returncode == 0, ended.stderr
    assert user.files() == {"config.json": DATA, "weights/big.bin": BIG.data()}


def test_a_manifest_s_digest_wins(user, server, big, model):
    other = Model({**model.files, "config.json": inline("another content")})
    (user.folder / "manifest.yaml").write_text(manifest_for(other))
    ended = user.run("--manifest-file", "manifest.yaml", "--profiles", profile_id(other), **server.environment())
    assert (ended.returncode, "wrong content" in ended.stderr) == (52, True)


def test_a_wrong_key_is_named_and_not_shown(user, server):
    environment = {**server.environment(), "AWS_SECRET_ACCESS_KEY": "hunter2hunter2"}
    ended = user.run("--model-uri", "s3://models/llama/", **environment)
    assert ended.returncode == 32
    assert "SignatureDoesNotMatch" in ended.stderr
    assert "AWS_SECRET_ACCESS_KEY" in ended.stderr
    assert "hunter2hunter2" not in ended.stdout + ended.stderr


def test_secrets_are_not_logged(user, server):
    environment = server.environment()
    ended = user.run("--model-uri", "s3://models/llama/", **environment, NIM_LOG_LEVEL="DEBUG")
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, ended.stderr
    assert environment["AWS_SECRET_ACCESS_KEY"] not in said
    assert environment["AWS_ACCESS_KEY_ID"] not in said
    assert "X-Amz-Signature" not in said


# ------------------------------------------------------------------------------------------------------ by a proxy, TLS
def test_nothing_bypasses_the_proxy(user, server, proxy):
    environment = server.environment() | {"AWS_ENDPOINT_URL": f"http://{STORE}:{server.port}"}
    by_proxy = {"http_proxy": f"http://{USERINFO}{proxy.host_port}"}
    assert len(user.download("s3://models/llama/", **environment, **by_proxy)) == 3
    assert proxy.saw(f"GET http://{STORE}:{server.port}/models?list-type=2")
    assert proxy.saw(f"HEAD http://{STORE}:{server.port}/models/llama/config.json")
    assert proxy.saw(f"GET http://{STORE}:{server.port}/models/llama/sub/weights.bin?X-Amz-Algorithm")


def test_nothing_bypasses_the_proxy_with_tls(user, server, certificates, proxy, big):
    environment = server.environment() | {"AWS_ENDPOINT_URL": f"https://{STORE}:{server.tls_port}"}
    environment |= {"HTTPS_PROXY": f"http://{USERINFO}{proxy.host_port}", "AWS_CA_BUNDLE": str(certificates.ca)}
    assert user.download("s3://models/big/", **environment) == {"weights.bin": BIG.data()}
    assert proxy.saw(f"CONNECT {STORE}:{server.tls_port}")


def test_a_role_is_assumed_by_the_proxy_too(user, server, certificates, proxy):
    endpoint = f"https://{STORE}:{server.tls_port}"
    admin = server.admin
    (user.folder / ".aws").mkdir()
    (user.folder / ".aws/config").write_text(
        f"[profile base]\naws_access_key_id={admin.access_key}\naws_secret_access_key={admin.secret_key}\n"
        f"[profile role]\nrole_arn={ROLE_ARN}\nsource_profile=base\nendpoint_url={endpoint}\nregion=us-east-1\n"
        f"ca_bundle={certificates.ca}\n"
    )
    by_proxy = {"HTTPS_PROXY": f"http://{USERINFO}{proxy.host_port}"}
    assert len(user.download("s3://models/llama/", AWS_PROFILE="role", **by_proxy)) == 3


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_authority(user, server, certificates, variable):
    environment = server.environment() | {"AWS_ENDPOINT_URL": server.tls_url, variable: str(certificates.ca)}
    assert len(user.download("s3://models/llama/", **environment)) == 3


def test_an_authority_that_is_not_trusted(user, server):
    environment = server.environment() | {"AWS_ENDPOINT_URL": server.tls_url, "AWS_CA_BUNDLE": ""}
    ended = user.run("--model-uri", "s3://models/llama/", **environment)
    assert (ended.returncode, "certificate not trusted" in ended.stderr) == (30, True)


def test_certificates_that_are_not_there(user, server):
    environment = server.environment() | {"AWS_ENDPOINT_URL": server.tls_url, "AWS_CA_BUNDLE": "/nowhere.pem"}
    ended = user.run("--model-uri", "s3://models/llama/", **environment)
    assert (ended.returncode, "AWS_CA_BUNDLE" in ended.stderr) == (10, True)
