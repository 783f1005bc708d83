"""A real registry, what tools push to one, its token service, and storage it redirects to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from nim_core.testing.certificates import Certificates
from nim_core.testing.corpus import Content, inline
from nim_core.testing.faults import Faults
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response, json_response
from nim_core.testing.ranged import serve_content, strong_etag

USER, PASSWORD = "alice", "p@ss:w/rd"
HTPASSWD = f"{USER}:$2b$04$02FtplsoI0WzWPO2JArnqOf2vKP0ejblxgZF5UNfZ7QVMD5zGLy8i\n"  # bcrypt of PASSWORD
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
EMPTY = inline(b"{}")
START_SECONDS = 20


def basic(username=USER, password=PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def descriptor(media_type: str, content: Content, **more) -> dict:
    return {"mediaType": media_type, "digest": str(content.digest("sha256")), "size": content.size, **more}


def layer(path: str, content: Content) -> dict:
    """Return a layer as ORAS writes one for a file."""
    return descriptor("application/octet-stream", content, annotations={TITLE: path})


def artifact(layers: list[dict]) -> dict:
    """Return a manifest as ``oras push`` writes it."""
    config = descriptor("application/vnd.oci.empty.v1+json", EMPTY)
    kind = "application/vnd.acme.model"
    return {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": config, "layers": layers}


@frozen
class Registry:
    """
    A running registry.

    Attributes:
        host: ``host:port``.
        folder: Where it keeps what was pushed.
        authorization: What pushes are signed with. None: nothing.
    """

    host: str
    folder: Path
    authorization: Callable[[str], str] | None = None

    def variables(self, password: str = PASSWORD) -> dict[str, str]:
        """Return the variables of a user who may read everything."""
        return {"OCI_REGISTRY": self.host, "OCI_USERNAME": USER, "OCI_PASSWORD": password}

    def request(self, method: str, name: str, path: str, **options) -> httpx.Response:
        headers = options.pop("headers", {})
        if self.authorization is not None:
            headers = {**headers, "Authorization": self.authorization(name)}
        url = path if "://" in path else f"http://{self.host}/v2/{name}/{path}"
        return httpx.request(method, url, headers=headers, trust_env=False, timeout=30, **options).raise_for_status()

    def push_blob(self, name: str, content: Content) -> None:
        place = self.request("POST", name, "blobs/uploads/").headers["Location"]
        query = {**httpx.URL(place).params, "digest": str(content.digest("sha256"))}
        self.request("PUT", name, place, params=query, content=content.data())

    def push_manifest(self, name: str, reference: str, manifest: dict) -> str:
        """Push a manifest or index, and return its digest; no reference means that."""
        body = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        headers = {"Content-Type": manifest["mediaType"]}
        self.request("PUT", name, f"manifests/{reference or digest}", content=body, headers=headers)
        return digest

    def push(self, name: str, tag: str, files: Mapping[str, Content]) -> str:
        """Push files as ``oras push`` does, and return the digest of the manifest."""
        for content in (EMPTY, *files.values()):
            self.push_blob(name, content)
        return self.push_manifest(name, tag, artifact([layer(path, content) for path, content in files.items()]))

    def blob_file(self, content: Content) -> Path:
        """Return the file that has a blob's bytes."""
        value = content.digest("sha256").value
        return self.folder / f"docker/registry/v2/blobs/sha256/{value[:2]}/{value}/data"


@contextlib.contextmanager
def running_registry(
    folder: Path, *, authorization: Callable[[str], str] | None = None, **config: object
) -> Iterator[Registry]:
    """Yield Debian's registry, with what ``config`` adds to its configuration."""
    executable = shutil.which("docker-registry")
    if executable is None:
        raise FileNotFoundError("a registry is not installed: apt-get install docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        host = f"127.0.0.1:{reserved.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
    settings = {"version": "0.1", "storage": storage, "http": {"addr": host}, **config}
    (folder / "config.yml").write_text(json.dumps(settings))  # JSON is YAML, too
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([executable, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://{host}/v2/", trust_env=False)
                break
            time.sleep(0.02)
        else:
            raise RuntimeError(f"the registry did not start: {(folder / 'log').read_text()}")
        yield Registry(host, folder / "data", authorization)
    finally:
        process.terminate()
        process.wait(10)


class TokenService:
    """
    Gives out tokens that the registry believes, for user and password or, where ``guests`` are let in, for nothing.

    Attributes:
        seconds: What it says tokens are good for; the registry goes by what is in them.
    """

    def __init__(self, certificates: Certificates) -> None:
        self.log = RequestLog()
        self.origin = HttpOrigin("tokens", self._answer, log=self.log)
        self.guests = False
        self.seconds = 300
        self._key = serialization.load_pem_private_key(certificates.key.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(certificates.certificate.read_bytes())
        self._chain = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        self.config = {
            "realm": f"{self.origin.url}/token",
            "service": "test registry",
            "issuer": "test issuer",
            "rootcertbundle": str(certificates.ca),
        }

    def token(self, name: str, *actions: str, lifetime: float = 300) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [self._chain]}
        claims = {
            "iss": "test issuer",
            "aud": "test registry",
            "sub": "",
            "exp": now + int(lifetime),
            "nbf": now - 60,
            "access": [{"type": "repository", "name": name, "actions": list(actions)}],
        }
        text = ".".join(_unpadded(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_unpadded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def for_pushing(self, name: str) -> str:
        """Return what signs a push."""
        return f"Bearer {self.token(name, 'pull', 'push')}"

    def _answer(self, request: Request) -> tuple[str, Response]:
        given = request.header("Authorization")
        if given != basic() and not (self.guests and given is None):
            return "refused", json_response({"errors": [{"code": "UNAUTHORIZED", "message": f"{given}"}]}, status=401)
        kind, name, actions = (request.parameter("scope") or "").split(":")
        assert (kind, actions, request.parameter("service")) == ("repository", "pull", "test registry")
        token = self.token(name, "pull", lifetime=self.seconds)
        return "token", json_response({"token": token, "expires_in": self.seconds})


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Storage:
    """Where a registry sends who asks for a blob; has the files of ``folder``, and wants no credential."""

    def __init__(self, folder: Path) -> None:
        self.log = RequestLog()
        self.faults = Faults()
        self.folder = folder
        self.origin = HttpOrigin("storage", self._answer, log=self.log)

    def _answer(self, request: Request) -> tuple[str, Response]:
        content = inline(Path(self.folder, request.path.lstrip("/")).read_bytes())
        return "blob", self.faults.apply("blob", request, serve_content(request, content, etag=strong_etag(content)))


@contextlib.contextmanager
def redirecting(storage: Storage, tokens: TokenService) -> Iterator[Registry]:
    """Yield a registry that wants a token and redirects to storage elsewhere."""
    redirect = {"name": "redirect", "options": {"baseurl": storage.origin.url}}
    config = {"auth": {"token": tokens.config}, "middleware": {"storage": [redirect]}}
    with running_registry(storage.folder.parent, authorization=tokens.for_pushing, **config) as running:
        yield running
