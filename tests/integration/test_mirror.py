"""A model once fetched serves an air-gapped site: mirrored into real buckets, verified, and served from there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from attrs import evolve, frozen

from nim_core.testing.corpus import PatternContent, inline, sample_corpus
from nim_core.testing.gcs_server import GcsServer
from nim_core.testing.google_auth import GoogleAuth
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer
from nim_core.testing.manifests import manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.testing.s3_server import S3Server

pytest_plugins = ["nim_core.testing"]

MIRROR = ("nim-llm", "mirror")
MODEL = NgcModel(files=sample_corpus(shard_size=3_000_000).files)
LARGE = NgcModel(
    files={"config.json": inline("{}\n"), "weights.bin": PatternContent(length=150 << 20)}, name="large-llm"
)
WEIGHTS = sorted(MODEL.files)[-1]


def key(uri):
    return quote(uri.removeprefix("ngc://"), safe="")


@frozen(kw_only=True)
class Bucket:
    """A bucket, its server's variables, and its vendor's own client."""

    sink: str
    scheme: str
    environment: dict[str, str]
    client: object
    name: str = ""

    @property
    def url(self):
        return f"{self.scheme}://{self.name}"

    def fresh(self):
        """Return an empty bucket at the same server."""
        name = f"models-{uuid.uuid4().hex[:8]}"
        if self.sink == "s3":
            self.client.create_bucket(Bucket=name)
        else:
            self.client.create_bucket(name)
        return evolve(self, name=name)

    def objects(self, prefix=""):
        """Read everything by the vendor's client: contents by key."""
        if self.sink == "s3":
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            names = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
            return {name: self.client.get_object(Bucket=self.name, Key=name)["Body"].read() for name in names}
        return {blob.name: blob.download_as_bytes() for blob in self.client.bucket(self.name).list_blobs(prefix=prefix)}

    def write(self, name, data):
        """Write an object as somebody who knows nothing of mirrors."""
        if self.sink == "s3":
            self.client.put_object(Bucket=self.name, Key=name, Body=data)
        else:
            self.client.bucket(self.name).blob(name).upload_from_string(data)

    def remove(self, name):
        if self.sink == "s3":
            self.client.delete_object(Bucket=self.name, Key=name)
        else:
            self.client.bucket(self.name).blob(name).delete()


@contextmanager
def s3_bucket(folder):
    import boto3
    from botocore.config import Config

    with S3Server(folder=folder) as server:
        client = boto3.client(
            "s3",
            endpoint_url=server.url,
            aws_access_key_id=server.admin.access_key,
            aws_secret_access_key=server.admin.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        yield Bucket(sink="s3", scheme="s3", environment=server.environment(), client=client)
        client.close()


@contextmanager
def gcs_bucket(folder):
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    folder.mkdir()
    with GoogleAuth() as auth, GcsServer(auth=auth) as server:
        client = storage.Client(
            project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": server.direct_url}
        )
        key_file = auth.service_account_file(folder)
        environment = {**server.environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(key_file)}
        yield Bucket(sink="gcs", scheme="gs", environment=environment, client=client)
        client.close()


@pytest.fixture(scope="module")
def s3_store(tmp_path_factory):
    with s3_bucket(tmp_path_factory.mktemp("s3") / "store") as made:
        yield made


@pytest.fixture(scope="module")
def gcs_store(tmp_path_factory):
    with gcs_bucket(tmp_path_factory.mktemp("gcs") / "store") as made:
        yield made


@pytest.fixture(params=["s3", "gcs"])
def bucket(request):
    return request.getfixturevalue(f"{request.param}_store").fresh()


@pytest.fixture
def s3(s3_store):
    return s3_store.fresh()


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "model_manifest.yaml"
    path.write_text(manifest_for(MODEL))
    return path


def options(bucket, manifest, *more, verify=False):
    """The arguments after ``mirror``, as the documentation writes them."""
    return (*(["verify"] if verify else []), bucket.sink, "--manifest", manifest, "--bucket", bucket.name, *more)


@pytest.fixture
def mirrored(bucket, manifest, machine):
    """The bucket, into which a machine that can reach NGC has mirrored the model; NGC is gone then."""
    with NgcServer([MODEL]) as server:
        env = {**server.environment(), **bucket.environment}
        machine.run(*options(bucket, manifest), command=MIRROR, env=env).check()
    return bucket


@pytest.fixture
def site(new_machine):
    """A machine that can reach no NGC, has no key for it, and gives up soon."""
    made = new_machine()
    with socket.create_server(("127.0.0.1", 0)) as server:
        nowhere = f"127.0.0.1:{server.getsockname()[1]}"
    made.environment = {
        "NGC_API_ENDPOINT": nowhere,
        "NGC_AUTH_ENDPOINT": nowhere,
        "NGC_API_SCHEME": "http",
        "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1",
        "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1",
    }
    return made


def tree(cache):
    """Everything visible in a cache but receipts: links with where they lead, files with their bytes."""
    return {
        str(path.relative_to(cache.path)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in (*cache.blobs, *cache.links)
    }


class TestRoundTrip:
    def test_a_site_is_served_with_the_same_bytes_in_the_same_places(self, mirrored, site, machine, manifest):
        env = {**mirrored.environment, "NIM_REPOSITORY_OVERRIDE": mirrored.url}

        site.run("--manifest-file", manifest, env=env).check()

        assert site.cache.differences(MODEL) == []
        assert tree(site.cache) == tree(machine.cache)

    def test_the_vendors_client_reads_every_key(self, mirrored):
        assert mirrored.objects() == {key(MODEL.uri(name)): content.data() for name, content in MODEL.files.items()}

    def test_an_object_that_was_tampered_with_is_refused_and_named(self, mirrored, site, manifest):
        mirrored.write(key(MODEL.uri("config.json")), b"something else")
        env = {**mirrored.environment, "NIM_REPOSITORY_OVERRIDE": mirrored.url}

        ended = site.run("--manifest-file", manifest, env=env)

        assert ended.code == 52
        assert "config.json" in ended.last
        assert not site.cache.link(MODEL, "config.json").exists()

    def test_again_costs_no_bytes_not_even_on_another_machine(self, mirrored, site, manifest):
        ended = site.run(*options(mirrored, manifest, "--json"), command=MIRROR, env=mirrored.environment).check()

        answer = json.loads(ended.stdout)
        assert answer["counts"] == {"present": len(MODEL.files)}
        assert (answer["bytes_fetched"], answer["bytes_sent"]) == (0, 0)
        assert site.cache.visible == []

    def test_what_is_wrong_or_gone_is_mended(self, mirrored, machine, manifest):
        config, weights = key(MODEL.uri("config.json")), key(MODEL.uri(WEIGHTS))
        mirrored.write(config, b"something else")
        mirrored.remove(weights)

        ended = machine.run(*options(mirrored, manifest, "--json"), command=MIRROR, env=mirrored.environment).check()

        assert json.loads(ended.stdout)["counts"] == {"present": len(MODEL.files) - 2, "uploaded": 2}
        assert mirrored.objects() == {key(MODEL.uri(name)): content.data() for name, content in MODEL.files.items()}


class TestVerify:
    @pytest.mark.parametrize("deep", [(), ("--deep",)], ids=["", "deep"])
    def test_all_is_right(self, mirrored, site, manifest, deep):
        arguments = options(mirrored, manifest, *deep, verify=True)

        ended = site.run(*arguments, command=MIRROR, env=mirrored.environment).check()

        how = "read and hashed" if deep else "by stored digests"
        count = len(MODEL.files)
        assert ended.stdout == f"{mirrored.url}: {count} of {count} objects right ({how})\n"

    def test_missing_wrong_and_foreign_ones_are_listed(self, mirrored, site, manifest):
        mirrored.write(key(MODEL.uri("config.json")), b"something else")
        mirrored.remove(key(MODEL.uri(WEIGHTS)))
        mirrored.write("notes.txt", b"mine")
        arguments = options(mirrored, manifest, "--deep", "--json", verify=True)

        ended = site.run(*arguments, command=MIRROR, env=mirrored.environment)

        answer = json.loads(ended.stdout)
        odd = {item["path"]: item["state"] for item in answer["objects"] if item["state"] != "right"}
        assert odd == {"config.json": "wrong", WEIGHTS: "missing"}
        assert [item["key"] for item in answer["foreign"]] == ["notes.txt"]
        assert ended.code == 52
        assert "1 object wrong and 1 missing" in ended.last

    def test_only_missing_ones(self, bucket, site, manifest):
        ended = site.run(*options(bucket, manifest, verify=True), command=MIRROR, env=bucket.environment)

        assert ended.code == 31
        assert ended.stdout.splitlines()[-1].endswith(f"{len(MODEL.files)} missing")

    def test_what_a_stranger_wrote_is_unproved_until_it_is_read(self, bucket, site, manifest):
        for name, content in MODEL.files.items():
            bucket.write(key(MODEL.uri(name)), content.data())
        plain = site.run(*options(bucket, manifest, verify=True), command=MIRROR, env=bucket.environment).check()
        deep = site.run(*options(bucket, manifest, "--deep", verify=True), command=MIRROR, env=bucket.environment)

        assert f"{len(MODEL.files)} unproved" in plain.stdout
        assert f"{len(MODEL.files)} of {len(MODEL.files)} objects right" in deep.check().stdout


def test_a_dry_run_says_what_would_be_done_and_does_nothing(bucket, manifest, machine):
    with NgcServer([MODEL]) as server:
        env = {**server.environment(), **bucket.environment}
        ended = machine.run(*options(bucket, manifest, "--dry-run"), command=MIRROR, env=env).check()

    assert f"upload    {key(MODEL.uri('config.json'))}\n" in ended.stdout
    assert f"{len(MODEL.files)} to upload" in ended.stdout.splitlines()[-1]
    assert bucket.objects() == {}
    assert machine.cache.visible == []


def test_beneath_a_prefix_with_the_manifest(bucket, manifest, machine, site):
    more = ("--prefix", "/nim-models/", "--with-manifest")
    with NgcServer([MODEL]) as server:
        env = {**server.environment(), **bucket.environment}
        ended = machine.run(*options(bucket, manifest, *more), command=MIRROR, env=env).check()
    assert ended.stdout == f"{profile_id(MODEL)}\t{bucket.url}/nim-models\n"
    objects = bucket.objects()
    assert objects.pop("nim-models/model_manifest.yaml") == manifest.read_bytes()
    assert set(objects) == {f"nim-models/{key(MODEL.uri(name))}" for name in MODEL.files}

    env = {**bucket.environment, "NIM_REPOSITORY_OVERRIDE": f"{bucket.url}/nim-models/"}
    site.run("--manifest-file", manifest, env=env).check()
    assert site.cache.differences(MODEL) == []


def test_other_sources_keep_their_scheme_and_serve_too(bucket, tmp_path, machine, site):
    model = HubModel(files=MODEL.files)
    manifest = tmp_path / "hub.yaml"
    manifest.write_text(manifest_for(model))
    with HubServer([model]) as server:
        env = {**server.environment(), **bucket.environment}
        machine.run(*options(bucket, manifest), command=MIRROR, env=env).check()
    assert set(bucket.objects()) == {quote(model.uri(name), safe="") for name in model.files}

    env = {**bucket.environment, "NIM_REPOSITORY_OVERRIDE": bucket.url, "NIM_REPOSITORY_OVERRIDE_SCHEMES": "hf"}
    site.run("--manifest-file", manifest, env={**env, "HF_ENDPOINT": "http://127.0.0.1:1"}).check()
    assert {link.name: link.read_bytes() for link in site.cache.links} == {
        name.rpartition("/")[2]: content.data() for name, content in model.files.items()
    }


def test_what_the_store_has_itself_is_copied_there(s3, tmp_path, machine):
    data = {f"part-{number}.bin": os.urandom(300_000) for number in range(3)}
    files = {}
    for name, content in data.items():
        sha256 = hashlib.sha256(content).digest()
        s3.client.put_object(
            Bucket=s3.name, Key=f"mine/{name}", Body=content, ChecksumSHA256=base64.b64encode(sha256).decode()
        )
        files[name] = {"uri": f"s3://{s3.name}/mine/{name}", "checksum": f"sha256:{sha256.hex()}"}
    manifest = tmp_path / "own.json"
    profile = {"id": "cd" * 32, "tags": {}, "workspace": {"files": files}}
    manifest.write_text(json.dumps({"schema_version": "2.0", "profiles": [profile]}))
    other = s3.fresh()

    ended = machine.run(*options(other, manifest, "--json"), command=MIRROR, env=s3.environment).check()

    states = {item["path"]: item["state"] for item in json.loads(ended.stdout)["objects"]}
    assert states == dict.fromkeys(data, "copied")
    assert machine.cache.blobs == []
    assert other.objects() == {quote(f"s3://{s3.name}/mine/{name}", safe=""): content for name, content in data.items()}
    machine.run(*options(other, manifest, verify=True), command=MIRROR, env=s3.environment).check()


class TestLargeFiles:
    @pytest.fixture
    def large(self, tmp_path):
        path = tmp_path / "large.yaml"
        path.write_text(manifest_for(LARGE))
        return path

    def test_a_killed_mirror_goes_on(self, s3, large, machine):
        with NgcServer([LARGE]) as server:
            env = {**server.environment(), **s3.environment}
            machine.run("--manifest-file", large, env=env).check()
        started = machine.start(*options(s3, large, "--max-connections", "1"), command=MIRROR, env=s3.environment)
        parts = wait_for_parts(s3)
        started.process.send_signal(signal.SIGKILL)
        started.end()
        assert key(LARGE.uri("weights.bin")) not in s3.objects()

        ended = machine.run(*options(s3, large, "--json"), command=MIRROR, env=s3.environment).check()

        sent = json.loads(ended.stdout)["bytes_sent"]
        assert sent <= (150 << 20) - parts * (32 << 20) + 1000
        assert s3.objects()[key(LARGE.uri("weights.bin"))] == LARGE.files["weights.bin"].data()
        assert unfinished(s3) == []

    def test_two_mirrors_at_once_do_not_disturb_each_other(self, s3, large, new_machine):
        with NgcServer([LARGE]) as server, ThreadPoolExecutor(2) as pool:
            env = {**server.environment(), **s3.environment}
            runs = [pool.submit(new_machine().run, *options(s3, large), command=MIRROR, env=env) for _ in range(2)]
            for run in runs:
                run.result().check()

        assert s3.objects()[key(LARGE.uri("weights.bin"))] == LARGE.files["weights.bin"].data()

    def test_interrupted_it_ends_at_once_and_nothing_is_readable(self, s3, large, machine):
        with NgcServer([LARGE]) as server:
            env = {**server.environment(), **s3.environment}
            machine.run("--manifest-file", large, env=env).check()
        started = machine.start(*options(s3, large, "--max-connections", "1"), command=MIRROR, env=s3.environment)
        wait_for_parts(s3)

        ended = started.end(send=signal.SIGINT)

        assert ended.code == 130
        assert ended.seconds < 4
        assert key(LARGE.uri("weights.bin")) not in s3.objects()


def unfinished(s3):
    return s3.client.list_multipart_uploads(Bucket=s3.name).get("Uploads", [])


def wait_for_parts(s3, seconds=30):
    """Wait until the store has a part of something unfinished, and return how many it has."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for upload in unfinished(s3):
            parts = s3.client.list_parts(Bucket=s3.name, Key=upload["Key"], UploadId=upload["UploadId"])
            if parts.get("Parts"):
                return len(parts["Parts"])
        time.sleep(0.02)
    raise AssertionError("no part was ever there")


class TestMistakes:
    def test_a_bucket_that_is_not_there(self, bucket, manifest, site):
        ended = site.run(bucket.sink, "-b", "nowhere", "--manifest", manifest, command=MIRROR, env=bucket.environment)

        assert ended.code == 31
        assert "no such bucket" in ended.last
        assert "nowhere" in ended.last

    def test_a_sink_that_is_not_installed(self, manifest, site):
        ended = site.run("azure", "-b", "models", "--manifest", manifest, command=MIRROR)

        assert ended.code == 10
        assert ended.last.startswith("error: no installed plugin writes to: azure")
        assert "gcs, s3" in ended.last

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "name one sink"),
            (("verify",), "name one sink"),
            (("s3", "gcs", "-b", "x"), "name one sink"),
            (("s3",), "--bucket"),
            (("s3", "-b", "x", "--deep"), "--deep needs verify"),
            (("verify", "s3", "-b", "x", "--dry-run"), "--dry-run cannot be combined with verify"),
            (("s3", "-b", "x", "--all", "--profiles", "y"), "--all cannot be combined with --profiles"),
        ],
    )
    def test_usage(self, arguments, said, site):
        ended = site.run(*arguments, command=MIRROR)

        assert ended.code == 2
        assert said in ended.last

    def test_a_damaged_file_of_the_cache_is_not_uploaded(self, s3, manifest, machine):
        with NgcServer([MODEL]) as server:
            machine.run("--manifest-file", manifest, env=server.environment()).check()
        blob = machine.cache.blob(MODEL, "config.json")
        info = blob.stat()
        blob.chmod(0o644)
        blob.write_bytes(bytes(len(blob.read_bytes())))
        os.utime(blob, ns=(info.st_atime_ns, info.st_mtime_ns))

        ended = machine.run(*options(s3, manifest), command=MIRROR, env=s3.environment)

        assert ended.code == 52
        assert "damaged since it was downloaded" in ended.last
        assert key(MODEL.uri("config.json")) not in s3.objects()
