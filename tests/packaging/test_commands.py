"""
Every command that the documentation shows, run as a user would, against servers of the kit; in the session ``docs``.

A block in ``bash`` is run, a page from top to bottom in one shell; what it shows as output is not compared. Servers
that have the models of the pages stand where the environment points. A block that cannot be run here has a comment
before it, ``<!-- not run: WHY -->``, and is skipped by that reason. Folders at the top of the machine are beneath a
test's own, and what listens for clients listens to this machine alone.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen
from packaging.requirements import Requirement

from nim_core.testing.corpus import sample_corpus
from nim_core.testing.gcs_server import GcsServer
from nim_core.testing.hub_models import HubModel
from nim_core.testing.hub_server import HubServer
from nim_core.testing.manifests import manifest_for
from nim_core.testing.modelscope_models import ModelScopeModel
from nim_core.testing.modelscope_server import ModelScopeServer
from nim_core.testing.ngc_models import NgcModel
from nim_core.testing.ngc_server import NgcServer
from nim_core.testing.s3_server import S3Server
from nim_core.testing.tiny_model import tiny_corpus

ROOT = Path(__file__).parents[2]
PATTERNS = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "plugins/*/README.md", "examples/*/README.md")
LANGUAGES = {"bash", "text", "python", "toml", "json", "yaml", "dockerfile"}
RUN_ELSEWHERE = {"docs/plugins/first-source.md": "tests/packaging/test_template.py"}
BEFORE = {
    "docs/override.md": [
        "nim-llm mirror s3 --manifest-file model_manifest.yaml --bucket my-bucket --prefix nim-models"
    ],
    "docs/install.md": ["mkdir -p /srv/"],
    "docs/reference/cli.md": ["mkdir -p /model-store/"],
    "docs/model-free.md": ["download-model --model-uri hf://org/model --workspace-path /opt/nim/model"],
}
"""What a page takes for done."""
FENCE = re.compile(r"(?ms)^(?:<!-- not run: (?P<reason>[^>]*) -->\n)?```(?P<language>\S*)\n(?P<text>.*?)^```$")
PROJECTS = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("examples/*/pyproject.toml")]
COMMANDS = (*tomllib.loads(PROJECTS[0].read_text(encoding="utf-8"))["project"]["scripts"], "pip", "export", "curl")
FOLDERS = re.compile(r"(?<![\w.])/(?=(?:opt|srv|models|model-store|var/cache)/)")
GIVEN = re.compile(r"\b([A-Z][A-Z_0-9]+)=(?:\.\.\.|[a-z]+[-_]\.\.\.)")
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@frozen
class Block:
    """A fenced block of a page; ``line`` is its first one's number."""

    line: int
    language: str
    text: str
    reason: str | None

    @property
    def lines(self) -> list[str]:
        """Its lines, continued ones joined."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, it.start("text")) + 1, it["language"], it["text"], it["reason"])
        for it in FENCE.finditer(text)
    ]


PAGES = {path.relative_to(ROOT).as_posix(): blocks_of(path) for it in PATTERNS for path in sorted(ROOT.glob(it))}
SHOWN = {name: [it for it in blocks if it.language == "bash"] for name, blocks in PAGES.items()}
INSTALLS = sorted(
    {
        line
        for blocks in PAGES.values()
        for it in blocks
        for line in it.lines
        if re.match(r"(\$ )?pip (?:install|download) ", line)
    }
)


def hidden_commands(block: Block) -> list[str]:
    """Return the commands that a block begins a line with, which is not run and no synopsis."""
    if block.language in {"bash", "console"} or "[" in block.text:
        return []
    first = [re.sub(r"^(\$ |\w+=\S* +)*", "", line).split()[0] for line in block.lines]
    return [word for word in first if word in COMMANDS]


def script_of(blocks: list[Block], before: list[str], folder: Path, port: int) -> str:
    """Return what a shell is to do for the blocks of one page: servers are started beside it, and waited for."""
    done = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for block in [Block(0, "bash", "\n".join(before), None), *blocks]:
        done.append(f"echo '--- line {block.line}' >&2")
        for line in block.lines:
            if line.startswith("pip install "):
                continue  # see test_what_is_installed_exists
            words = FOLDERS.sub(f"{folder}/", GIVEN.sub(r'\1="$\1"', line)).replace(
                "localhost:8000", f"127.0.0.1:{port}"
            )
            if re.search(r"\bnim-serve\b", words) and "--dry-run" not in words:
                ready = f"curl --silent --fail --output /dev/null 127.0.0.1:{port}/v1/health/ready"
                words = f"{words} --host 127.0.0.1 &\nuntil {ready}; do kill -0 $!; sleep 0.1; done"
            done.append(words)
    return "\n".join(done)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Servers that have the models and buckets of the pages; gives the variables that lead there."""
    files, gguf = sample_corpus().files, tiny_corpus("gguf").files
    ngc = [
        NgcModel(files=files, org="org", team="team", name="model", version="version"),
        NgcModel(files=files, org="nim", team="meta", name="llama-3.1-8b-instruct", version="hf-8c22764"),
    ]
    hub = [
        HubModel(files=gguf, repository="org/model"),
        HubModel(files=files, repository="org/model", revisions=("revision",)),
        HubModel(files=files, repository="meta-llama/Llama-3.1-8B-Instruct", gated=True),
    ]
    scope = [ModelScopeModel(files=files, org="LLM-Research", name="Llama-3.2-1B-Instruct")]
    buckets = ("my-models-bucket", "my-bucket", "bucket")
    with ExitStack() as running:
        started = [
            running.enter_context(server)
            for server in (
                NgcServer(ngc),
                HubServer(hub),
                ModelScopeServer(scope),
                S3Server(tmp_path_factory.mktemp("s3"), buckets=buckets),
                GcsServer(),
            )
        ]
        started[-1].make_bucket("my-models-bucket")
        environ = {"NO_GCE_CHECK": "true"}
        for server in started:
            environ |= server.environment()
        put_objects(environ)
        environ["MANIFEST"] = manifest_for(ngc[0])
        yield environ


def put_objects(environ: Mapping[str, str]) -> None:
    """Put the sample model where the pages have one in a bucket."""
    import boto3

    keys = {
        "aws_access_key_id": environ["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environ["AWS_SECRET_ACCESS_KEY"],
    }
    client = boto3.client("s3", endpoint_url=environ["AWS_ENDPOINT_URL"], region_name="us-east-1", **keys)
    for path, content in sample_corpus().files.items():
        client.put_object(Bucket="my-bucket", Key=f"my-org/my-model/{path}", Body=content.data())
        client.put_object(Bucket="bucket", Key=f"folder/{path}", Body=content.data())


@pytest.mark.parametrize("name", sorted(name for name, blocks in SHOWN.items() if any(not it.reason for it in blocks)))
def test_commands_shown_work(name: str, servers: Mapping[str, str], tmp_path: Path) -> None:
    done = run(SHOWN[name], servers, tmp_path, BEFORE.get(name, []))
    assert done.returncode == 0, f"{name}: {done.stderr[-6000:]}"


def run(
    blocks: list[Block], servers: Mapping[str, str], folder: Path, before: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run what of ``blocks`` is to be run, in a folder of its own that has a manifest."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    work = folder / "work"
    work.mkdir()
    (work / "model_manifest.yaml").write_text(servers["MANIFEST"], encoding="utf-8")
    environ = {
        **servers,
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), PATHS]),
        "HOME": str(folder),
        "NIM_CACHE_PATH": str(folder / "cache"),
        "NIM_SERVER_PORT": str(port),
    }
    script = script_of([it for it in blocks if not it.reason], before, folder, port)
    command = ["bash", "-x", "-c", script]
    return subprocess.run(command, cwd=work, env=environ, capture_output=True, text=True, timeout=100, check=False)


LEFT_OUT = [(f"{name}:{it.line}", it.reason) for name, blocks in SHOWN.items() for it in blocks if it.reason]


@pytest.mark.parametrize(("place", "reason"), LEFT_OUT, ids=[place for place, _ in LEFT_OUT])
def test_what_is_not_run_says_why(place: str, reason: str) -> None:
    assert len(reason) > 15, place
    pytest.skip(reason)


@pytest.mark.parametrize("name", PAGES)
def test_no_command_is_hidden(name: str) -> None:
    allowed = LANGUAGES | {"console"} if name in RUN_ELSEWHERE else LANGUAGES
    assert {it.language for it in PAGES[name]} <= allowed
    assert [line for it in PAGES[name] for line in hidden_commands(it)] == []


@pytest.mark.parametrize("name", RUN_ELSEWHERE)
def test_what_is_run_elsewhere_is(name: str) -> None:
    assert name.rpartition("/")[2] in (ROOT / RUN_ELSEWHERE[name]).read_text(encoding="utf-8")


@pytest.mark.parametrize("line", INSTALLS)
def test_what_is_installed_exists(line: str) -> None:
    """That it can be installed shows the session ``wheels``."""
    known = {}
    for file in PROJECTS:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        known[project["name"]] = set(project.get("optional-dependencies", ()))
    options = r"\s--(?:(?:find-links|requirement|group|editable|dest)\s+\S+|\S+)"
    wanted = re.sub(rf"\s+(&&|#).*|{options}", "", line.removeprefix("$ ")).split()[2:]
    for word in wanted:
        requirement = Requirement(word.strip("'\""))
        assert requirement.name in {*known, "uv"}, line
        assert requirement.extras <= known.get(requirement.name, set()), line


def test_a_command_that_fails_would_be_seen(servers: Mapping[str, str], tmp_path: Path) -> None:
    block = Block(1, "bash", "nim-llm plugins list\ndownload-to-cache --no-such-option\nnim-llm plugins list\n", None)
    done = run([block], servers, tmp_path, [])
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
