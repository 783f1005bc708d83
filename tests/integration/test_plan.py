"""What ``nim-llm plan`` says is what then happens: the same files, bytes and servers; and it writes nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from attrs import define, field

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.faults import cut
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HUB_TOKEN, HubServer
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.testing.ranged import serve_content, strong_etag
from nim_core.testing.squid import USERINFO, squid

pytest_plugins = ["nim_core.testing"]

MEBIBYTE = 1 << 20
MODEL = NgcModel(files={"config.json": inline("{}\n"), "weights.bin": PatternContent(length=68 * MEBIBYTE)})
HUB = HubModel(files={"config.json": inline("{}\n"), "model.safetensors": PatternContent(length=3 * MEBIBYTE)})
PLAIN = {"a.bin": PatternContent(length=70_000), "b.bin": PatternContent(length=80_000, seed=2)}
LOCAL = "adapter.json"
PLAN = ("nim-llm", "plan")


@define
class Origins:
    """Servers of three kinds, and a folder; ``manifest`` names files of all but the Hub's."""

    ngc: NgcServer
    hub: HubServer
    plain: HttpOrigin
    manifest: str

    def forget(self):
        for log in self.logs.values():
            log.clear()

    @property
    def logs(self):
        return {"ngc": self.ngc.log, "hub": self.hub.log, "plain": self.plain.log}

    @property
    def asked(self):
        """Origins that requests went to."""
        urls = {
            "api": self.ngc.api_url,
            "storage of ngc": self.ngc.storage_url,
            "hub": self.hub.url,
            "storage of hub": self.hub.storage_url,
            "plain": self.plain.url,
        }
        names = {
            f"storage of {kind}" if exchange.request.origin == "storage" else exchange.request.origin
            for kind, log in self.logs.items()
            for exchange in log
        }
        return {urls[name] for name in names}


@pytest.fixture
def origins(machine):
    machine.folder.joinpath(LOCAL).write_text("{}")
    files = {
        name: {"uri": MODEL.uri(name), "checksum": str(MODEL.files[name].digest("blake3"))} for name in MODEL.files
    }
    files[LOCAL] = {"uri": f"local://{machine.folder / LOCAL}"}

    def answer(request):
        content = PLAIN[request.target[1:]]
        return "file", serve_content(request, content, etag=strong_etag(content))

    with (
        NgcServer([MODEL]) as ngc,
        HubServer([HUB]) as hub,
        HttpOrigin("plain", answer, log=RequestLog()) as plain,
    ):
        for name, content in PLAIN.items():
            files[name] = {"uri": f"{plain.url}/{name}", "checksum": str(content.digest("sha256"))}
        profile = {"id": "a" * 64, "tags": {}, "workspace": {"files": files}}
        manifest = machine.folder / "manifest.json"
        manifest.write_text(json.dumps({"schema_version": "2.0.0", "profiles": [profile]}))
        machine.environment = {
            **ngc.environment(),
            **hub.environment(),
            "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1",
            "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1",
        }
        yield Origins(ngc=ngc, hub=hub, plain=plain, manifest=str(manifest))
    assert ngc.storage.leaks == hub.storage.leaks == []


# ---------------------------------------------------------------------------------------------------------- situations
def nothing(machine, origins):
    """An empty cache."""


def everything(machine, origins):
    machine.run("--manifest-file", origins.manifest).check()


def a_part(machine, origins):
    everything(machine, origins)
    machine.cache.blob(MODEL, "weights.bin").unlink()


def a_partial(machine, origins):
    """A download that was broken off within a part."""
    a_part(machine, origins)
    origins.ngc.faults.add(cut(20 * MEBIBYTE), route="storage", path="*/weights.bin", times=50)
    once = {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "0"}
    assert machine.run("--manifest-file", origins.manifest, env=once).code != 0
    origins.ngc.faults.clear()


def damage(machine, origins):
    """One byte of a cached file is another, which neither size nor times show."""
    everything(machine, origins)
    blob = machine.cache.blob(MODEL, "config.json")
    before = blob.stat()
    blob.write_bytes(b"[]\n")
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))


def a_lost_link(machine, origins):
    everything(machine, origins)
    machine.cache.link(MODEL, "config.json").unlink()


def the_hub(machine, origins):
    machine.run("--model-uri", HUB.uri()).check()


@define
class Case:
    before: object
    options: list[str]
    fetched: set[str]
    resumes: bool = False
    redirects: bool = False
    states: dict[str, str] = field(factory=dict)


ALL = {"config.json", "weights.bin", "a.bin", "b.bin"}
HUB_URI = ["--model-uri", HUB.uri()]
CASES = {
    "empty cache": Case(nothing, [], ALL, states={LOCAL: "local"}),
    "full cache": Case(everything, [], set(), states={"config.json": "cached"}),
    "partly cached": Case(a_part, [], {"weights.bin"}),
    "interrupted": Case(a_partial, [], {"weights.bin"}, resumes=True, states={"weights.bin": "resume"}),
    "damaged": Case(damage, [], {"config.json"}),
    "damaged, trusted": Case(damage, ["--use-cache"], set()),
    "damaged, read again": Case(damage, ["--verify"], {"config.json"}),
    "not checked": Case(damage, ["--no-verify-checksums"], {"a.bin", "b.bin"}),
    "lost link": Case(a_lost_link, [], set()),
    "force": Case(everything, ["--force"], ALL),
    "full, trusted": Case(everything, ["--use-cache"], set()),
    "partly, trusted": Case(a_part, ["--use-cache"], {"weights.bin"}),
    "model": Case(nothing, HUB_URI, set(HUB.files), redirects=True),
    "some files": Case(nothing, [*HUB_URI, "--include", "*.json"], {"config.json"}),
    "model, cached": Case(the_hub, HUB_URI, set()),
    "one file": Case(nothing, ["--model-uri", MODEL.uri("weights.bin")], {"weights.bin"}),
}


def seen(folder):
    """Everything there is, and when it was written."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} | {folder: folder.stat().st_mtime_ns}


def bytes_there(machine):
    """What every cached file is made of, by path in its snapshot."""
    return {
        str(path).partition("/snapshots/")[2].partition("/")[2]: (path.stat().st_ino, path.stat().st_ctime_ns)
        for path in machine.cache.links
        if path.exists()
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_planned_is_what_happens(case, machine, origins):
    case.before(machine, origins)
    options = case.options if "--model-uri" in case.options else ["--manifest-file", origins.manifest, *case.options]
    origins.forget()
    before = seen(machine.folder)
    planned = json.loads(machine.run(*options, "--json", command=PLAN).check().stdout)
    assert seen(machine.folder) == before
    origins.forget()
    there = bytes_there(machine)
    happened = json.loads(machine.run(*options, "--json").check().stdout)

    wanting = {file["path"] for file in planned["files"] if file["state"] in {"fetch", "resume"}}
    brought = {path for path, bytes_of in bytes_there(machine).items() if there.get(path) != bytes_of}
    assert wanting == case.fetched
    assert brought - wanting == ({"config.json"} if case.before is a_lost_link else set())
    assert wanting <= brought
    assert planned["files_to_fetch"] == sum(target["fetched"] for target in happened["targets"])
    assert planned["bytes_to_fetch"] == happened["bytes_fetched"]
    assert planned["damaged"] == happened["damaged"]
    assert bool(planned["bytes_resumed"]) == case.resumes
    redirected = {origins.hub.storage_url} if case.redirects else set()
    assert {host["host"] for host in planned["hosts"]} | redirected == origins.asked
    states = {file["path"]: file["state"] for file in planned["files"]}
    assert states | case.states == states
    assert planned["error"] is None
    assert planned["unknown_sizes"] == planned["places_not_looked_up"] == 0


# ----------------------------------------------------------------------------------------------------------- one by one
def but_for_free_space(text):
    """Leave out how much is free, which changes by itself, and by making a folder."""
    return re.sub(r"[\d.,]+( [kMGT]?B)? free", "free", text)


def test_dry_run_is_the_same(machine, origins):
    arguments = ("--manifest-file", origins.manifest)
    planned = machine.run(*arguments, command=PLAN).check()
    assert but_for_free_space(machine.run(*arguments, "--dry-run").check().stdout) == but_for_free_space(planned.stdout)
    assert not machine.cache.path.exists()


@pytest.mark.parametrize(
    "command",
    [("nim-llm", "download-model"), ("nim-llm", "create-model-store", "--model-store=/nowhere/store", "--profile")],
)
def test_a_dry_run_of_other_commands_is_the_same(command, machine, origins):
    arguments = ("--manifest-file", origins.manifest)
    planned = machine.run(*arguments, command=PLAN).check()
    profile = yaml.safe_load(Path(origins.manifest).read_text())["profiles"][0]["id"]
    words = (*((profile,) if "--profile" in command else ()), *arguments, "--dry-run")
    assert but_for_free_space(machine.run(*words, command=command).check().stdout) == but_for_free_space(planned.stdout)
    assert not machine.cache.path.exists()


def test_it_reads_well(machine, origins):
    text = machine.run("--manifest-file", origins.manifest, command=PLAN).check().stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "fetch    71.3 MB   71.3 MB  weights.bin\n" in text
    assert "to fetch: 4 files, 71.5 MB\n" in text
    assert "used from where they are: 1 file, 2 B\n" in text
    assert f"credential for {origins.ngc.api_url}: bearer token from NGC_API_KEY\n" in text
    for secret in (NgcServer.nvapi_key, HUB_TOKEN, "Signature"):
        assert secret not in text


def test_no_network_is_used_where_a_receipt_is_enough(machine, origins, sockets):
    everything(machine, origins)
    arguments = ("--manifest-file", origins.manifest, "--use-cache")
    ended = machine.run(*arguments, command=PLAN, within=sockets.within).check()
    assert sockets.lines == []
    assert "no network is used" in ended.stdout


def test_proxies_and_credentials_are_named_without_what_is_secret_in_them(machine, origins):
    with squid(auth=True) as proxy:
        through = {"HTTP_PROXY": f"http://{USERINFO}{proxy.host_port}"}
        machine.folder.joinpath("home/.netrc").write_text("machine 127.0.0.1 login me password hunter2hunter2\n")
        ended = machine.run("--manifest-file", origins.manifest, "--json", command=PLAN, env=through).check()
    planned = json.loads(ended.stdout)
    assert {host["proxy"] for host in planned["hosts"]} == {f"http://{proxy.host_port}"}
    origins_of = {item["source"]: (item["kind"], item["origin"]) for item in planned["credentials"]}
    assert origins_of["ngc"] == ("bearer_token", "NGC_API_KEY")
    assert origins_of["http"] == ("basic_pair", str(machine.folder / "home/.netrc"))
    assert "hunter2" not in ended.said


def test_a_disk_that_is_too_small(machine, origins, mount):
    mount(machine.cache.path, "-t", "tmpfs", "-o", "size=60m", "tmpfs")
    planned = machine.run("--manifest-file", origins.manifest, command=PLAN)
    happened = machine.run("--manifest-file", origins.manifest)
    assert planned.code == happened.code == 61
    assert f"disk {machine.cache.path}: 71.5 MB needed, 62.9 MB free: does not fit\n" in planned.stdout
    assert but_for_free_space(planned.last) == but_for_free_space(happened.last)


def test_a_cache_that_cannot_be_written(machine, origins, mount):
    mount(machine.cache.path, "-t", "tmpfs", "-o", "ro", "tmpfs")
    planned = machine.run("--manifest-file", origins.manifest, command=PLAN)
    happened = machine.run("--manifest-file", origins.manifest)
    assert planned.code == happened.code == 62
    assert planned.last == happened.last
    assert "to fetch: 4 files" in planned.stdout


def test_a_read_only_cache_that_has_everything(machine, origins, mount):
    everything(machine, origins)
    mount(machine.cache.path, "--bind", "-o", "ro", machine.cache.path)
    ended = machine.run("--manifest-file", origins.manifest, command=PLAN).check()
    assert "nothing to fetch\n" in ended.stdout


def test_blobs_and_partials_on_two_volumes(machine, origins, mount):
    """A vendor's variable puts blobs elsewhere: both volumes are counted, and the one that is too small is named."""
    volume = mount(machine.folder / "volume", "-t", "tmpfs", "-o", "size=8m", "tmpfs")
    moved = {"HF_HUB_CACHE": str(volume / "hub")}
    planned = json.loads(machine.run(*HUB_URI, "--json", command=PLAN, env=moved).check().stdout)
    size = sum(content.size for content in HUB.files.values())
    assert {device["mount"]: device["needed"] for device in planned["devices"]} == {
        str(volume): size,
        **{device["mount"]: size for device in planned["devices"] if device["mount"] != str(volume)},
    }
    assert len(planned["devices"]) == 2
    machine.run(*HUB_URI, env=moved).check()
    assert machine.cache.blobs == []
    assert len(list(volume.glob("hub/*/blobs/*"))) == len(HUB.files)

    (volume / "other").write_bytes(bytes(3 * MEBIBYTE))
    forced = (*HUB_URI, "--force")
    planned = machine.run(*forced, command=PLAN, env=moved)
    happened = machine.run(*forced, env=moved)
    assert planned.code == happened.code == 61
    assert but_for_free_space(planned.last) == but_for_free_space(happened.last)
    assert f"not enough space in {volume / 'hub'}" in planned.last
