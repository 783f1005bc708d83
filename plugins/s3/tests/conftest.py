"""A real S3 server with a few buckets, and sources and sinks opened against it."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest
from attrs import define
from nim_source_s3.plugin import nim_provide_credential, nim_register_sinks, nim_register_sources
from nim_source_s3.sink import S3Sink
from nim_source_s3.source import S3Source

from nim_core.errors import TransientError
from nim_core.testing.certificates import Certificates, make_certificates
from nim_core.testing.harness import source_context
from nim_core.testing.s3_server import ROLE_ARN, S3Server
from nim_core.types import Body, HttpAnswer, HttpUpload, SinkContext

pytest_plugins = ["nim_core.testing"]

DATA = b"0123456789" * 1000
STORE = "store.internal"
OpenSource = Callable[..., S3Source]
OpenSink = Callable[..., S3Sink]


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

    def read(self, key: str, bucket: str = "mirror") -> bytes | None:
        """Return what is in an object. None when there is none."""
        client = self.client()
        try:
            return client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None

    def unfinished(self, key: str) -> list[str]:
        """Return the ids of uploads to a key of ``mirror``."""
        found = self.client().list_multipart_uploads(Bucket="mirror").get("Uploads", ())
        return [upload["UploadId"] for upload in found if upload["Key"] == key]

    def session(self) -> dict[str, str]:
        """Return the variables of a temporary credential."""
        answer = self.client("sts").assume_role(RoleArn=ROLE_ARN, RoleSessionName="tests")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": answer["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": answer["SecretAccessKey"],
            "AWS_SESSION_TOKEN": answer["SessionToken"],
        }


class Sender:
    """Stands in for what core sends requests of sinks with: each once, to the letter."""

    def __init__(self) -> None:
        self.sent: list[HttpUpload] = []

    def __call__(self, upload: HttpUpload) -> HttpAnswer:
        """Return the answer. Raises TransientError when there is none."""
        self.sent.append(upload)
        parts, headers = urlsplit(upload.url.reveal()), {name: value.reveal() for name, value in upload.headers}
        content = None
        if upload.body is not None:
            headers["Content-Length"] = str(upload.body.size)
            content = _pieces(upload.body)
        trust = ssl.create_default_context(cafile=upload.authorities)
        try:
            with httpx.Client(trust_env=False, timeout=60, verify=trust) as client:
                answer = client.request(
                    upload.method,
                    f"{parts.scheme}://{parts.netloc}/",
                    headers=headers,
                    content=content,
                    extensions={"target": f"{parts.path}?{parts.query}".encode("ascii")},
                )
        except (httpx.TransportError, OSError) as exc:
            raise TransientError(f"no answer from {parts.hostname}") from exc
        return HttpAnswer(status=answer.status_code, headers=dict(answer.headers), body=answer.content)


def _pieces(body: Body) -> Iterator[bytes]:
    """Yield all of a body. Raises OSError, which cuts the connection, where its file is too short."""
    left = body.size
    with body.open() as stream:
        while piece := stream.read(1 << 20):
            left -= len(piece)
            yield piece
    if left:
        raise OSError("too short")


@pytest.fixture(autouse=True)
def nobodys_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key, profile or proxy of the person who runs the tests is found, nor a cloud's metadata service asked."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def names(monkeypatch):
    """A resolver that knows every name below s3.localhost, as many do and some do not."""
    ask = socket.getaddrinfo

    def answer(host, *arguments, **options):
        name = host.decode() if isinstance(host, bytes) else host
        return ask("127.0.0.1" if str(name).endswith("s3.localhost") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    """A private authority, and a certificate for a name that only the proxy knows."""
    return make_certificates(tmp_path_factory.mktemp("certificates"), STORE)


@pytest.fixture(scope="session")
def server(tmp_path_factory, certificates) -> Iterator[Store]:
    """A server with the buckets ``models``, ``public`` and, empty, ``mirror``."""
    folder = tmp_path_factory.mktemp("s3")
    buckets = ("models", "public", "mirror")
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


@pytest.fixture
def sender() -> Sender:
    """What sinks send with, which remembers what it sent."""
    return Sender()


@pytest.fixture
def open_sink(sender: Sender) -> Iterator[OpenSink]:
    """Return a function that makes a sink from variables, closed at the end of the test."""
    [spec] = nim_register_sinks()
    with ExitStack() as stack:

        def open_one(environment, *, bucket="mirror", trust=None) -> S3Sink:
            context = stack.enter_context(
                source_context(spec, environment, provide=nim_provide_credential, trust=trust)
            )
            shared = {name: getattr(context, name) for name in ("http", "variables", "credential")}
            sink = spec.factory(SinkContext(bucket=bucket, send=sender, **shared))
            stack.callback(sink.close)
            return sink

        yield open_one


@pytest.fixture
def sink(open_sink: OpenSink, server: Store) -> S3Sink:
    """A sink with the keys of someone who may do everything."""
    return open_sink(server.environment())
