"""A source and a sink for ``shelf_store`` that do everything right; what is broken derives from them."""

from __future__ import annotations

from urllib.parse import quote

from nim_core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RemoteChangedError,
    SizeMismatchError,
    SourceError,
    TransientError,
)
from nim_core.types import (
    Digest,
    EnvVar,
    HttpObject,
    HttpUpload,
    Listing,
    RemoteFile,
    Secret,
    SinkSpec,
    SourceSpec,
    StoredObject,
    StoredPart,
    Upload,
    UriStyle,
)

VARIABLES = (
    EnvVar(name="SHELF_URL", summary="the store", kind="url"),
    EnvVar(name="SHELF_TOKEN", summary="its token", secret=True),
)
KINDS = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    412: RemoteChangedError,
    429: RateLimitedError,
}
PART = 1 << 20


def digests_of(text):
    return tuple(Digest(*item.split(":")) for item in (text or "").split(",") if item)


def text_of(digests):
    return ",".join(f"{digest.algorithm}:{digest.value}" for digest in digests)


class Shelf:
    """What source and sink share."""

    def __init__(self, context):
        self.http = context.http
        self.url = context.variables.text("SHELF_URL")
        token = context.variables.secret("SHELF_TOKEN")
        self.headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}

    def address(self, bucket, kind, name=""):
        return f"{self.url}/{bucket}/{kind}/{quote(name, safe='')}"

    def check(self, status, what):
        if status >= 500:
            raise TransientError(f"the store failed: HTTP {status}")
        if status >= 300:
            error = KINDS.get(status, SourceError)
            raise error(f"refused: {what}: HTTP {status}", hint="set SHELF_TOKEN, or look at the bucket's name")

    def ask(self, method, url, what, **headers):
        answer = self.http.request(method, url, headers={**self.headers, **headers})
        self.check(answer.status_code, what)
        return answer

    def told(self, bucket, key):
        answer = self.http.request("HEAD", self.address(bucket, "o", key), headers=self.headers)
        if answer.status_code == 404:
            return None
        self.check(answer.status_code, key)
        size, digests = int(answer.headers["content-length"]), digests_of(answer.headers.get("x-digests"))
        return StoredObject(key=key, size=size, digests=digests, version=answer.headers["etag"])

    def close(self):
        pass


class ShelfSource(Shelf):
    def list_files(self, uri):
        bucket, _, key = uri.location.partition("/")
        found = self.told(bucket, key)
        if found is None:
            raise NotFoundError(f"no such object: {key}", uri=str(uri))
        return Listing(uri=uri, files=(RemoteFile(path="object", size=found.size, digests=found.digests),), pinned=None)

    def locate(self, uri, file):
        bucket, _, key = uri.location.partition("/")
        headers = tuple((name, Secret(value)) for name, value in self.headers.items())
        return HttpObject(url=self.address(bucket, "o", key), headers=headers)


class ShelfSink(Shelf):
    def __init__(self, context):
        super().__init__(context)
        self.bucket, self.carry = context.bucket, context.send

    def head(self, key):
        return self.told(self.bucket, key)

    def list_objects(self, prefix):
        url = f"{self.address(self.bucket, 'list')}?prefix={quote(prefix, safe='')}"
        for key, size in self.ask("GET", url, self.bucket).json().items():
            yield StoredObject(key=key, size=size)

    def conditions(self, new):
        return {"If-None-Match": "*"} if new.replaces is None else {"If-Match": new.replaces.version}

    def described(self, new):
        return {"X-Digests": text_of(new.digests)}

    def checksum(self, digests):
        return {"X-Crc32c": next(it.value for it in digests if it.algorithm == "crc32c")}

    def send(self, method, url, what, body, headers):
        named = tuple((name, Secret(value)) for name, value in {**self.headers, **headers}.items())
        self.check(self.carry(HttpUpload(url=url, method=method, headers=named, body=body)).status, what)

    def put(self, new, body):
        headers = {**self.conditions(new), **self.described(new), **self.checksum(new.digests)}
        self.send("PUT", self.address(self.bucket, "o", new.key), new.key, body, headers)

    def part_bytes(self, size):
        return PART if size > PART else None

    def begin(self, new, token):
        known = token and self.http.get(f"{self.address(self.bucket, 'u')}{token.reveal()}", headers=self.headers)
        if known and known.status_code == 200 and known.json()["key"] == new.key:
            parts = tuple(
                StoredPart(number=number, size=size, digests=(Digest("crc32c", crc),))
                for number, size, crc in known.json()["parts"]
            )
            return Upload(token=token, part_bytes=PART, stored=parts)
        url = f"{self.address(self.bucket, 'u')}?key={quote(new.key, safe='')}"
        return Upload(token=self.ask("POST", url, new.key).json()["upload"], part_bytes=PART)

    def part_url(self, upload, number=""):
        return f"{self.address(self.bucket, 'u')}{upload.token.reveal()}{f'/{number}' if number else ''}"

    def put_part(self, new, upload, part):
        self.send("PUT", self.part_url(upload, part.number), new.key, part.body, self.checksum((part.crc32c,)))
        return StoredPart(number=part.number, size=part.body.size, digests=(part.crc32c,))

    def finish(self, new, upload, parts):
        if sum(part.size for part in parts) != new.size:
            raise SizeMismatchError(f"parts are missing: {new.key}")
        headers = {**self.conditions(new), **self.described(new), **self.checksum(new.digests)}
        self.ask("POST", self.part_url(upload), new.key, **headers)

    def abort(self, new, upload):
        answer = self.http.request("DELETE", self.part_url(upload), headers=self.headers)
        if answer.status_code != 404:
            self.check(answer.status_code, new.key)

    def copy(self, new, uri):
        bucket, _, key = uri.location.partition("/")
        origin = self.told(bucket, key) if (uri.scheme, bucket) == (self.scheme, self.bucket) else None
        if origin is None or origin.size != new.size or not set(origin.digests) & set(new.digests):
            return False
        url = f"{self.address(self.bucket, 'copy', new.key)}?from={quote(key, safe='')}"
        self.ask("POST", url, new.key, **self.conditions(new), **self.described(new))
        return True


def source_spec(name):
    return SourceSpec(
        name=name,
        schemes=(name,),
        uri_style=UriStyle.OBJECT,
        summary="a shelf",
        factory=ShelfSource,
        environment=VARIABLES,
    )


def sink_spec(name, sink):
    kind = type("Sink", (sink,), {"scheme": name})
    return SinkSpec(name=name, scheme=name, summary="a shelf", factory=kind, environment=VARIABLES)
