"""A real S3 server with a few buckets, and sources opened against it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from attrs import define
from nim_source_s3.plugin import nim_provide_credential, nim_register_sources
from nim_source_s3.source import S3Source

from nim_core.testing.certificates import Certificates, make_certificates
from nim_core.testing.harness import source_context
from nim_core.testing.s3_server import ROLE_ARN, S3Server

pytest_plugins = ["nim_core.testing"]

DATA = b"0123456789" * 1000
STORE = "store.internal"
OpenSource = Callable[..., S3Source]


@define(eq=False)
class Store(S3Server):
    """The server, with boto3 to fill it."""

    def client(self, service="s3"):
        """Return a client with the admin's keys."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.admin.access_key,
            aws_secret_access_key=self.admin.secret_key,
            config=Config(proxies={}, s3={"addressing_style": "path"}),
        )

    def session(self) -> dict[str, str]:
        """Return the variables of a temporary credential."""
        answer = self.client("sts").assume_role(RoleArn=ROLE_ARN, RoleSessionName="tests")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": answer["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": answer["SecretAccessKey"],
            "AWS_SESSION_TOKEN": answer["SessionToken"],
        }


@pytest.fixture(autouse=True)
def nobodys_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key, profile or proxy of the person who runs the tests is found, nor a cloud's metadata service asked."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    """A private authority, and a certificate for a name that only the proxy knows."""
    return make_certificates(tmp_path_factory.mktemp("certificates"), STORE)


@pytest.fixture(scope="session")
def server(tmp_path_factory, certificates) -> Iterator[Store]:
    """A server with the buckets ``models`` and ``public``."""
    folder = tmp_path_factory.mktemp("s3")
    buckets = ("models", "public")
    with Store(folder, certificates=certificates, buckets=buckets, guests_read="public") as running:
        client = running.client()
        client.put_object(Bucket="models", Key="llama/config.json", Body=DATA, ChecksumAlgorithm="SHA256")
        client.put_object(Bucket="models", Key="llama/sub/weights.bin", Body=DATA)
        client.put_object(Bucket="models", Key="llama/empty", Body=b"")
        client.put_object(Bucket="public", Key="read/me.txt", Body=DATA)
        yield running


@pytest.fixture
def open_source() -> Iterator[OpenSource]:
    """Return a function that makes a source from variables, closed at the end of the test."""
    [spec] = nim_register_sources()
    with ExitStack() as stack:

        def open_one(environment, *, provide=nim_provide_credential, trust=None) -> S3Source:
            context = stack.enter_context(source_context(spec, environment, provide=provide, trust=trust))
            source = S3Source(context)
            stack.callback(source.close)
            return source

        yield open_one


@pytest.fixture
def source(open_source: OpenSource, server: Store) -> S3Source:
    """A source with the keys of someone who may read and list."""
    return open_source(server.environment(server.reader))
