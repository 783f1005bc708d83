"""What a user sees when a download cannot be completed: which exit code, which last words, and what is left behind."""

import json
import re
import shutil
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from attrs import define, evolve, field, frozen

from nim_core.testing.corpus import Content, PatternContent, inline, with_flipped_byte
from nim_core.testing.faults import answer_with, cut, wrong_length
from nim_core.testing.http_server import Response
from nim_core.testing.manifests import manifest_for, profile_id
from nim_core.testing.ngc_models import NgcModel, refusal
from nim_core.testing.ngc_server import NgcServer

MEBIBYTE = 1 << 20
PART = 32 * MEBIBYTE
"""Smallest stretch of a large file that is remembered across runs."""

SMALL = NgcModel(files={"config.json": inline('{"a": 1}\n'), "weights.bin": PatternContent(length=70_000)})
MEDIUM = NgcModel(files={"weights.bin": PatternContent(length=8 * MEBIBYTE)})
LARGE = NgcModel(files={"config.json": inline("{}\n"), "weights.bin": PatternContent(length=2 * PART + 4 * MEBIBYTE)})
IMPATIENT = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1", "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1"}

EXIT_CODES = {401: 32, 402: 34, 403: 33, 404: 31, 412: 36, 429: 37, 451: 35, 503: 39}
RETRIED = {429, 503}
SECRETS = re.compile(f"{NgcServer.nvapi_key}|Signature=[0-9a-f]")


@pytest.fixture
def connect(machine, serve):
    """Return a function that serves a model to the machine, whose commands then try everything once more at most."""

    def start(model, key=NgcServer.nvapi_key, **options):
        served = serve(model, **options)
        machine.environment = {**served.server.environment(key), **IMPATIENT}
        return served

    return start


def nothing_is_visible(cache):
    return cache.visible == []


# ------------------------------------------------------------------------------------------------ refused by the source
API_WORDS = {
    401: ("NGC_API_KEY", "organisation nim", "team meta"),
    402: ("NGC_API_KEY", "organisation nim", "team meta", "entitlement"),
    403: ("NGC_API_KEY", "organisation nim", "team meta"),
    404: ("nim/meta/sample-llm:hf-1.0+chk1", "organisation nim"),
    412: ("terms", "accept", "https://catalog.ngc.nvidia.com/orgs/nim/teams/meta/models/sample-llm"),
    429: ("nim/meta/sample-llm:hf-1.0+chk1", "later"),
    451: ("region",),
    503: ("nim/meta/sample-llm:hf-1.0+chk1", "later"),
}


@frozen
class Refused:
    """How a download ended, what the server was asked, and what was left."""

    ended: object
    log: object
    cache: object


@pytest.fixture(scope="module")
def refused(new_machine):
    """Every refusal by API and storage, by these names and its status; tried at once, as there are many."""

    def attempt(case):
        origin, status = case
        machine = new_machine()
        manifest = machine.folder / "manifest.yaml"
        manifest.write_text(manifest_for(SMALL))
        with NgcServer([SMALL]) as server:
            if origin == "api":
                server.refuse(status)
            else:
                answer = answer_with(refusal(status, "told by the storage"))
                server.faults.add(answer, route="storage", path="*/weights.bin")
            variables = {**server.environment(), **IMPATIENT, "NIM_LOG_LEVEL": "DEBUG"}
            ended = machine.run("--manifest-file", manifest, env=variables)
        return Refused(ended, server.log, machine.cache)

    cases = [(origin, status) for origin in ("api", "storage") for status in EXIT_CODES]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(cases, pool.map(attempt, cases), strict=True))


@pytest.mark.parametrize("status", EXIT_CODES)
def test_the_api_refuses(status, refused):
    found = refused["api", status]
    assert found.ended.code == EXIT_CODES[status]
    for words in (*API_WORDS[status], f"HTTP {status}", f"(exit {EXIT_CODES[status]})", "hint: "):
        assert words in found.ended.last
    assert not SECRETS.search(found.ended.said)
    assert found.log.count(route="listing") == (2 if status in RETRIED else 1)
    assert not found.cache.path.exists()


@pytest.mark.parametrize("status", EXIT_CODES)
def test_the_storage_refuses(status, refused):
    """A 401, 403 or 404 may mean an expired URL, so it is final the second time only."""
    found = refused["storage", status]
    assert found.ended.code == EXIT_CODES[status]
    for words in (SMALL.uri("weights.bin"), f"HTTP {status}", "127.0.0.1", f"(exit {EXIT_CODES[status]})"):
        assert words in found.ended.last
    assert not SECRETS.search(found.ended.said)
    asked = found.log.count(origin="storage", path="*/weights.bin")
    assert asked == (2 if status in {*RETRIED, 401, 403, 404} else 1)
    assert [path.name for path in found.cache.links if path.name == "weights.bin"] == []
    assert found.cache.receipts == {}


def test_without_a_key_the_variable_to_set_is_named(machine, connect):
    served = connect(SMALL, key=None)
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 32
    for words in ("no API key was found", "set NGC_API_KEY (or NGC_CLI_API_KEY)", "organisation nim"):
        assert words in ended.last


def test_the_operator_gets_json_lines_and_the_diagnosis_last(machine, connect):
    served = connect(SMALL)
    served.server.refuse(503)
    ended = machine.run("--manifest-file", served.manifest, env={"NIM_JSONL_LOGGING": "1"})
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert lines[-1]["level"] == "ERROR"
    assert lines[-1]["exit_code"] == ended.code == 39
    assert "HTTP 503" in lines[-1]["message"]
    assert "later" in lines[-1]["hint"]


def test_a_storage_that_asks_to_wait_is_obeyed(machine, connect):
    served = connect(SMALL)
    busy = Response(status=429, headers={"Retry-After": "1"})
    served.server.faults.add(answer_with(busy), route="storage", path="*/weights.bin", times=1)
    ended = machine.run("--manifest-file", served.manifest).check()
    assert ended.seconds > 1
    assert machine.cache.differences(SMALL) == []


def test_a_page_of_a_proxy_instead_of_an_answer(machine, connect):
    served = connect(SMALL)
    page = Response(headers={"Content-Type": "text/html"}, body=inline("<html><body>Log in to Wi-Fi</body></html>"))
    served.server.faults.add(answer_with(page))
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 30
    assert "cannot be understood" in ended.last
    assert "nim/meta/sample-llm" in ended.last


# ------------------------------------------------------------------------------------------------------ wrong content
@pytest.mark.parametrize("model", [SMALL, MEDIUM], ids=["small", "large"])
def test_a_flipped_byte_is_never_visible(model, machine, connect):
    served = connect(model)
    content = model.files["weights.bin"]
    served.server.storage.flip(model.storage_path("weights.bin"), 60_000)
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 52
    wrong = with_flipped_byte(content, 60_000).digest("blake3")
    for words in (model.uri("weights.bin"), str(content.digest("blake3")), str(wrong), "127.0.0.1"):
        assert words in ended.last
    assert not machine.cache.blob(model, "weights.bin").exists()
    assert wrong.value not in {path.name for path in machine.cache.blobs}
    assert not machine.cache.link(model, "weights.bin").is_symlink()
    assert machine.cache.receipts == {}


def test_one_bad_transfer_is_repaired(machine, connect):
    served = connect(MEDIUM)
    wrong = PatternContent(length=8 * MEBIBYTE, seed=7)
    served.server.faults.add(lambda response: evolve(response, body=wrong), route="storage", times=1)
    ended = machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(MEDIUM) == []
    assert "transfer_restart" in ended.stderr


@pytest.mark.parametrize("path", ["../../etc/x", "/etc/x", "a\\..\\x"])
def test_a_manifest_that_names_a_path_outside(path, machine, connect):
    served = connect(SMALL)
    manifest = yaml.safe_load(manifest_for(SMALL))
    files = manifest["profiles"][0]["workspace"]["files"]
    files[path] = files.pop("config.json")
    served.manifest.write_text(yaml.safe_dump(manifest))
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 12
    assert "unsafe file path" in ended.last
    assert "backslash" in ended.last if "\\" in path else path in ended.last
    assert str(served.manifest) in ended.last
    assert len(served.server.log) == 0
    assert not machine.cache.path.exists()


# --------------------------------------------------------------------------------------------------------- full disks
def test_too_little_space_is_seen_before_the_first_byte(machine, connect, mount):
    served = connect(MEDIUM)
    mount(machine.cache.path, "-t", "tmpfs", "-o", "size=6m", "tmpfs")
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 61
    assert f"{8 * MEBIBYTE:,} bytes needed" in ended.last
    assert "needed" in ended.last
    assert "free" in ended.last
    assert "NIM_CACHE_PATH" in ended.last
    assert served.bodies == {}
    assert nothing_is_visible(machine.cache)


def test_too_few_inodes_are_seen_before_the_first_byte(machine, connect, mount):
    served = connect(NgcModel(files={f"{number}.json": inline(str(number)) for number in range(40)}))
    mount(machine.cache.path, "-t", "tmpfs", "-o", "nr_inodes=30", "tmpfs")
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 61
    assert "inodes" in ended.last
    assert served.bodies == {}
    assert nothing_is_visible(machine.cache)


def test_a_disk_that_fills_up_on_the_way(machine, connect, mount, gate):
    """Something else takes the space; what was there stays, and is gone on with once there is room."""
    served = connect(LARGE)
    size = LARGE.files["weights.bin"].size
    mount(machine.cache.path, "-t", "tmpfs", "-o", f"size={size + 4 * MEBIBYTE}", "tmpfs")
    served.server.faults.add(gate.hold(16 * MEBIBYTE), route="storage", path="*/weights.bin")
    other = machine.cache.path / "other"
    started = machine.start("--manifest-file", served.manifest)
    gate.wait_for(started)
    other.write_bytes(bytes(8 * MEBIBYTE))
    gate.opened.set()
    ended = started.end()
    assert ended.code == 61
    assert not machine.cache.link(LARGE, "weights.bin").is_symlink()
    assert machine.cache.receipts == {}

    other.unlink()
    served.server.log.clear()
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(LARGE) == []
    assert received(served, "weights.bin") < size
    for words in ("no space left", "NIM_CACHE_PATH", str(machine.cache.path)):
        assert words in ended.last


def test_a_disk_too_small_for_files_of_unknown_size(machine, connect, mount):
    """A key that may not list gets digests but no sizes, so that nothing can be known before."""
    served = connect(MEDIUM)
    for route in ("listing", "manifest"):
        served.server.refuse(401, route=route)
    mount(machine.cache.path, "-t", "tmpfs", "-o", "size=6m", "tmpfs")
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 61
    assert nothing_is_visible(machine.cache)
    for words in ("no space left", "NIM_CACHE_PATH", str(machine.cache.path)):
        assert words in ended.last


def received(served, name):
    """How many bytes of a file the storage was asked for."""
    return sum(exchange.sent for exchange in served.server.log.select(origin="storage", path=f"*/{name}"))


# ----------------------------------------------------------------------------------------------- folders that resist
def test_a_read_only_cache(machine, connect, mount):
    served = connect(SMALL)
    mount(machine.cache.path, "-t", "tmpfs", "-o", "ro", "tmpfs")
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 62
    for words in ("read-only file system", str(machine.cache.path), "NIM_CACHE_PATH"):
        assert words in ended.last
    assert served.bodies == {}


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_cache_path_that_is_a_file(below, machine, connect):
    served = connect(SMALL)
    machine.cache.path.write_text("precious")
    ended = machine.run("--manifest-file", served.manifest, "--model-cache-path", machine.cache.path / below)
    assert ended.code == 60
    assert f": {machine.cache.path / below} (" in ended.last
    assert "use another cache" in ended.last
    assert machine.cache.path.read_text() == "precious"
    assert served.bodies == {}


def test_a_cache_of_another_user(shared_machine, serve, other_user):
    served = serve(SMALL)
    manifest = shared_machine.folder / "manifest.yaml"
    shutil.copy(served.manifest, manifest)
    shared_machine.cache.path.mkdir()
    ended = shared_machine.run("--manifest-file", manifest, within=other_user, env=served.server.environment())
    assert ended.code == 62
    for words in ("uid 1000", "gid 1000", str(shared_machine.cache.path), "permission denied", "NIM_CACHE_PATH"):
        assert words in ended.last
    assert served.bodies == {}


@pytest.mark.parametrize("below", ["", "snapshots/hf-1.0+chk1", "blobs"])
def test_a_planted_link_is_not_followed(below, machine, connect):
    served = connect(SMALL)
    outside = machine.folder / "outside"
    outside.mkdir()
    planted = machine.cache.snapshot(SMALL).parents[1] / below
    planted.parent.mkdir(parents=True)
    planted.symlink_to(outside)
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 60
    assert f"not a folder of the cache's own: {planted} (" in ended.last
    assert list(outside.iterdir()) == []
    assert machine.cache.receipts == {}


@pytest.mark.parametrize("content", ["right", "wrong"])
def test_a_link_that_leads_out_of_the_cache_is_replaced(content, machine, connect):
    """Even where what it leads to is right now: it is not the cache's to keep."""
    served = connect(SMALL)
    outside = machine.folder / "outside"
    outside.write_bytes(SMALL.files["weights.bin"].data() if content == "right" else b"precious")
    before = outside.read_bytes()
    link = machine.cache.link(SMALL, "weights.bin")
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    machine.run("--manifest-file", served.manifest).check()
    assert outside.read_bytes() == before
    assert machine.cache.differences(SMALL) == []
    assert link.resolve() == machine.cache.blob(SMALL, "weights.bin").resolve()


def test_a_root_that_was_put_on_another_volume_is_followed(machine, connect):
    served = connect(SMALL)
    volume = machine.folder / "volume"
    volume.mkdir()
    machine.cache.path.mkdir()
    (machine.cache.path / "ngc").symlink_to(volume)
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(SMALL) == []
    assert (volume / "hub").is_dir()


# ---------------------------------------------------------------------------------------------- broken transfers
def ranges_of(served, name):
    """The Range headers a file was asked for with, in order."""
    exchanges = served.server.log.select(origin="storage", path=f"*/{name}")
    return [exchange.request.header("Range") for exchange in exchanges]


def test_a_cut_transfer_goes_on_where_it_was_cut(machine, connect):
    served = connect(MEDIUM)
    served.server.faults.add(cut(3 * MEBIBYTE), route="storage", times=1)
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(MEDIUM) == []
    assert ranges_of(served, "weights.bin") == [None, f"bytes={3 * MEBIBYTE}-"]


def test_a_length_that_is_not_true_once(machine, connect):
    served = connect(MEDIUM)
    served.server.faults.add(wrong_length(5), route="storage", times=1)
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(MEDIUM) == []


@pytest.mark.parametrize("difference", [5, -5])
def test_a_length_that_is_never_true(difference, machine, connect):
    served = connect(MEDIUM)
    served.server.faults.add(wrong_length(difference), route="storage")
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 51
    assert nothing_is_visible(machine.cache)
    for words in ("127.0.0.1", MEDIUM.uri("weights.bin")):
        assert words in ended.last


def whole_instead_of_range(response):
    """Send all of a file where a part was asked for, as servers do that do not know ranges."""
    if response.status != 206:
        return response
    headers = {name: value for name, value in response.headers.items() if name != "Content-Range"}
    return Response(headers=headers, body=getattr(response.body, "whole", response.body))


def test_a_server_that_ignores_ranges(machine, connect):
    served = connect(LARGE)
    served.server.faults.add(whole_instead_of_range, route="storage")
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(LARGE) == []
    assert ranges_of(served, "weights.bin")[-1] is None


# --------------------------------------------------------------------------------------------- what expires on the way
@define(eq=False)
class Gate:
    """
    Stops bodies on their way until it is opened.

    Attributes:
        reached: Set when the first body has come to it.
        opened: Set when it lets everything through.
    """

    reached: threading.Event = field(factory=threading.Event)
    opened: threading.Event = field(factory=threading.Event)

    def hold(self, after):
        """Return a fault that sends ``after`` bytes (full mebibytes) and the rest once the gate is open."""
        return lambda response: evolve(response, body=_Held(whole=response.body, after=after, gate=self))

    def wait_for(self, started):
        """Wait until a body has come to the gate; fails the test when the command has ended instead."""
        while not self.reached.wait(0.05):
            assert started.process.poll() is None, started.end().stderr


@frozen(kw_only=True)
class _Held(Content):
    whole: Content
    after: int
    gate: Gate

    @property
    def size(self):
        return self.whole.size

    def read(self, start, stop):
        if start >= self.after:
            self.gate.reached.set()
            self.gate.opened.wait(60)
        return self.whole.read(start, stop)


@pytest.fixture
def gate(serve):
    """A gate, opened before the servers of the test end."""
    made = Gate()
    yield made
    made.opened.set()


def test_a_url_that_expires_on_the_way(machine, connect):
    """The rest is asked for at a new URL, not the whole."""
    served = connect(MEDIUM)

    def cut_and_expire(response):
        served.server.expire_urls()
        return cut(3 * MEBIBYTE)(response)

    served.server.faults.add(cut_and_expire, route="storage", times=1)
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(MEDIUM) == []
    rest = f"bytes={3 * MEBIBYTE}-"
    assert ranges_of(served, "weights.bin") == [None, rest, rest]
    assert [exchange.status for exchange in served.server.log.select(origin="storage")] == [200, 403, 206]


def test_urls_that_are_old_before_their_turn_comes(machine, connect):
    served = connect(SMALL, url_lifetime=-1)
    ended = machine.run("--manifest-file", served.manifest)
    assert ended.code == 33
    assert SMALL.uri() in ended.last


@pytest.mark.parametrize("presigned", [True, False], ids=["presigned", "redirecting"])
def test_a_token_that_expires_on_the_way(presigned, machine, connect):
    served = connect(MEDIUM, key=NgcServer.legacy_key)
    if not presigned:
        served.server.refuse_bulk_manifest()

    def cut_and_expire(response):
        served.server.expire_tokens()
        served.server.expire_urls()
        return cut(3 * MEBIBYTE)(response)

    served.server.faults.add(cut_and_expire, route="storage", times=1)
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(MEDIUM) == []
    assert served.server.log.count(route="token") == 2
    assert received(served, "weights.bin") < MEDIUM.files["weights.bin"].size * 2


# ----------------------------------------------------------------------------------------------- interrupted and killed
@pytest.mark.parametrize(
    ("sent", "code", "last"),
    [
        (signal.SIGINT, 130, "error: interrupted (exit 130); hint: what was fetched is kept"),
        (signal.SIGTERM, 143, "error: terminated (exit 143); hint: what was fetched is kept"),
        (signal.SIGKILL, -9, None),
    ],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_a_download_that_is_ended_goes_on_later(sent, code, last, connect, under_way):
    """It ends within a second; the next run fetches no more than what was on its way."""
    served = connect(LARGE)
    started, machine, let_through = under_way(served)
    ended = started.end(send=sent)
    assert ended.code == code
    assert ended.seconds < 1
    assert "Traceback" not in ended.said
    if last is not None:
        assert ended.last.startswith(last)
    assert not machine.cache.link(LARGE, "weights.bin").is_symlink()
    assert machine.cache.receipts == {}

    let_through()
    served.server.log.clear()
    machine.run("--manifest-file", served.manifest).check()
    assert machine.cache.differences(LARGE) == []
    assert 0 < received(served, "weights.bin") <= PART
    assert machine.cache.leftovers == []


@pytest.fixture
def under_way(machine, gate):
    """Return a function that starts a download of LARGE and waits until all but its last part are here."""

    def start(served):
        served.server.faults.add(gate.hold(4 * MEBIBYTE), route="storage", path="*/weights.bin", times=1)
        started = machine.start("--manifest-file", served.manifest)
        gate.wait_for(started)
        wait_for_parts(machine.cache, 2)
        return started, machine, gate.opened.set

    return start


def wait_for_parts(cache, count):
    """Wait until so many parts of a file have been written down as whole in its journal."""
    for _ in range(600):
        journals = [path.read_bytes().splitlines()[1:] for path in cache.path.glob("tmp/*/journal")]
        if any(sum(b'"done"' not in line for line in lines) >= count for lines in journals):
            return
        threading.Event().wait(0.05)
    pytest.fail("the parts never came")


def test_two_downloads_of_one_profile_at_once(machine, connect, gate):
    served = connect(LARGE)
    served.server.faults.add(gate.hold(0), route="storage", path="*/config.json")
    both = [machine.start("--manifest-file", served.manifest) for _ in range(2)]
    gate.wait_for(both[0])
    gate.opened.set()
    for ended in [started.end() for started in both]:
        assert ended.code == 0, ended.stderr
    assert machine.cache.differences(LARGE) == []
    assert len(machine.cache.blobs) == len(LARGE.files)
    assert machine.cache.receipts.keys() == {profile_id(LARGE)}
    assert machine.cache.leftovers == []


# --------------------------------------------------------------------------------------------------- no way to there
def test_nobody_answers(machine, connect):
    served = connect(SMALL)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    ended = machine.run("--manifest-file", served.manifest, env={"NGC_API_ENDPOINT": f"http://{address}"})
    assert ended.code == 39
    assert address in ended.last
    assert "refused" in ended.last.lower()


def test_a_name_that_does_not_resolve(machine, connect):
    served = connect(SMALL)
    ended = machine.run("--manifest-file", served.manifest, env={"NGC_API_ENDPOINT": "https://ngc.invalid"})
    assert ended.code in {30, 39}  # the name service may say no, or not answer itself
    for words in ("host name not resolved", "ngc.invalid", "HTTPS_PROXY"):
        assert words in ended.last


# ------------------------------------------------------------------------------------------------------ bad plugins
RAISES = """
from nim_core.hookspecs import hookimpl
from nim_core.types import SourceSpec, UriStyle

class Source:
    def __init__(self, context): pass
    def list_files(self, uri): return {}["a secret"]
    def locate(self, uri, file): raise AssertionError
    def close(self): pass

@hookimpl
def nim_register_sources():
    return [SourceSpec(name="acme", schemes=("acme",), uri_style=UriStyle.REPOSITORY, summary="x", factory=Source)]
"""


@pytest.fixture
def install(tmp_path):
    """Return a function that installs a plugin by hand, and gives the variable that makes it found."""

    def make(name, code):
        site = tmp_path / "site"
        info = site / f"acme_{name}-4.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 4.2\n")
        (info / "entry_points.txt").write_text(f"[nim_core.plugins]\n{name} = acme_{name}\n")
        (site / f"acme_{name}.py").write_text(code)
        return {"PYTHONPATH": str(site)}

    return make


def test_a_plugin_with_a_bug_is_named(machine, install):
    ended = machine.run("--model-uri", "acme://org/model:1", env=install("broken", RAISES))
    assert ended.code == 20
    for words in ("plugin broken (acme-broken 4.2) failed in list_files: KeyError", "report", "authors of acme-broken"):
        assert words in ended.last
    assert "a secret" not in ended.said
    assert "Traceback" not in ended.said


@pytest.mark.parametrize("code", ["import no_such_module", "raise SystemExit(3)"])
def test_a_plugin_that_cannot_be_imported_stops_nobody_else(code, machine, connect, install):
    served = connect(SMALL)
    ended = machine.run("--manifest-file", served.manifest, env=install("broken", code)).check()
    assert machine.cache.differences(SMALL) == []
    [warning] = [line for line in ended.stderr.splitlines() if "acme-broken" in line]
    assert warning.startswith("WARNING ")


def test_a_scheme_that_nobody_brings(machine):
    ended = machine.run("--model-uri", "oci://registry/model", env={"PYTHONPATH": ""})
    assert ended.code == 24
    assert "oci://" in ended.last
    assert "nim-llm plugins list" in ended.last
