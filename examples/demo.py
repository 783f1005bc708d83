"""
The product in half a minute: models come from servers here into a cache, verified; at the end one answers a question.

Everything typed here is what a user would type. No credential and no network beyond this machine is used.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from nim_core.testing.tiny_model import ANSWER, QUESTION

MIXED = "ab" * 32
SHARD_BYTES = 192 << 20
BOLD, DIM, RESET = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
SCRIPTS = Path(sys.executable).parent


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nim-demo-") as name:
        folder = Path(name)
        with serving("ngc_server", f"--folder={folder}", f"--shard-size={SHARD_BYTES}") as ngc:
            online(folder, ngc["environment"])
            with serving("hub_server") as hub:
                from_several_sources(folder, ngc["environment"], hub)
            with serving("s3_server", "--bucket=models") as s3:
                mirror(folder, {**ngc["environment"], **s3["environment"]})
                ngc_is_gone = {"NIM_CACHE_PATH": str(folder / "site"), **s3["environment"]}
                air_gapped(folder, ngc_is_gone)
        offline(folder)
        with serving("ngc_server", f"--folder={folder}", "--tiny=gguf") as ngc:
            answer(folder, ngc["environment"])


def online(folder: Path, environ: dict[str, str]) -> None:
    say("A server that speaks NGC's protocol runs on this machine. Which sources are installed?")
    run(folder, environ, "nim-llm", "plugins", "list")
    say("A profile of the manifest comes into the cache; every byte is verified while it arrives.")
    run(folder, environ, "download-to-cache", "--manifest-file", "model_manifest.yaml", "--profiles", profile(folder))
    say("The cache: verified bytes in blobs/, names in snapshots/, and a receipt.")
    show_tree(folder / "cache")
    show_receipt(folder / "cache")
    say("Again: the source is asked, what is cached is hashed, nothing needs to be fetched.")
    run(folder, environ, "download-to-cache", "--manifest-file", "model_manifest.yaml", "--profiles", profile(folder))
    say("One byte of a weight file rots on disk. The next run sees it and fetches that file alone.")
    damage(folder / "cache")
    run(folder, environ, "download-to-cache", "--manifest-file", "model_manifest.yaml", "--profiles", profile(folder))


def from_several_sources(folder: Path, ngc: dict[str, str], hub: dict[str, Any]) -> None:
    say("A Hugging Face Hub runs here too. A model that is named by its URI gets a manifest of its own.")
    environ = {**ngc, **hub["environment"]}
    run(folder, environ, "download-to-cache", "--model-uri", hub["model"], "--manifest-file", "hub.json")
    say("One profile takes files from several sources at once: weights from NGC, the rest from the Hub and from here.")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}\n")
    weights = yaml.safe_load((folder / "model_manifest.yaml").read_text())["profiles"][0]
    manifest = json.loads((folder / "hub.json").read_text())
    files = manifest["profiles"][0]["workspace"]["files"]
    files |= {name: file for name, file in weights["workspace"]["files"].items() if name.endswith(".safetensors")}
    files["chat_template.jinja"] = {"uri": f"local://{folder}?file=chat_template.jinja"}
    manifest["profiles"][0]["id"] = MIXED
    (folder / "mixed.json").write_text(json.dumps(manifest))
    environ["NIM_CACHE_PATH"] = str(folder / "another")
    run(folder, environ, "download-to-cache", "--manifest-file", "mixed.json", "--profiles", MIXED)
    show_sources(folder / "another")


def mirror(folder: Path, environ: dict[str, str]) -> None:
    say("An S3 server runs here as well. The profile goes into a bucket, for a site that cannot reach NGC.")
    run(folder, environ, "nim-llm", "mirror", "s3", "--manifest-file", "model_manifest.yaml", "--bucket", "models")
    say("Is everything there, and right? Every object is read again.")
    command = ("nim-llm", "mirror", "verify", "s3", "--manifest-file", "model_manifest.yaml", "-b", "models", "--deep")
    run(folder, environ, *command)


def air_gapped(folder: Path, environ: dict[str, str]) -> None:
    say("The site: an empty cache, no key for NGC, only the bucket. The digests are still those of the manifest.")
    environ = {**environ, "NIM_REPOSITORY_OVERRIDE": "s3://models"}
    print(f"{BOLD}$ export NIM_REPOSITORY_OVERRIDE=s3://models{RESET}")
    run(folder, environ, "download-to-cache", "--manifest-file", "model_manifest.yaml", "--profiles", profile(folder))


def offline(folder: Path) -> None:
    say("The server is gone, and so is the key. The cache alone is enough.")
    seconds = run(
        folder,
        {},
        "download-to-cache",
        "--manifest-file",
        "model_manifest.yaml",
        "--profiles",
        profile(folder),
        "--use-cache",
    )
    say(f"That took {seconds:.2f} s, interpreter start included, without a socket opened.")


def answer(folder: Path, environ: dict[str, str]) -> None:
    say("A model of half a megabyte is on NGC now. One command downloads and serves it, here with llama.cpp.")
    url = f"http://127.0.0.1:{free_port()}"
    environ = {**environ, "NIM_MANIFEST_PATH": "model_manifest.yaml", "NIM_SERVER_PORT": url.rpartition(":")[2]}
    print(f"{BOLD}$ nim-serve &{RESET}", flush=True)
    began = time.monotonic()
    with subprocess.Popen([SCRIPTS / "nim-serve"], cwd=folder, env=environment(folder, environ)) as server:
        try:
            seconds = until_ready(url, server) - began
            say(f"Ready {seconds:.1f} s after the command was typed. What clients see, and what they are answered:")
            (model,) = asked(url, "/v1/models")["data"]
            messages = [{"role": "user", "content": QUESTION}]
            content = {"model": model["id"], "messages": messages, "temperature": 0}
            said = asked(url, "/v1/chat/completions", content)["choices"][0]["message"]["content"]
            print(f"\n  {QUESTION}\n  {BOLD}{said}{RESET}\n", flush=True)
        finally:
            server.terminate()
    if said != ANSWER or server.returncode:
        raise SystemExit(f"expected: {ANSWER}")


def until_ready(url: str, server: subprocess.Popen[bytes]) -> float:
    while server.poll() is None:
        try:
            asked(url, "/v1/health/ready")
            return time.monotonic()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nim-serve ended by itself")


def asked(url: str, path: str, content: Any = None) -> Any:
    shown = "" if content is None else f" --json '{json.dumps(content)}'"
    if path != "/v1/health/ready":
        print(f"{BOLD}$ curl {url}{path}{shown}{RESET}", flush=True)
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
        return json.load(reply)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(name: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """Run a server of the kit; gives what it says of itself."""
    command = [sys.executable, "-m", f"nim_core.testing.{name}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())
        finally:
            server.terminate()


def profile(folder: Path) -> str:
    lines = (folder / "model_manifest.yaml").read_text().splitlines()
    return next(line.removeprefix("- id: ") for line in lines if line.startswith("- id: "))


def run(folder: Path, environ: dict[str, str], *command: str) -> float:
    shown = [word if len(word) < 40 else f"{word[:12]}…" for word in command]
    print(f"{BOLD}$ {' '.join(shown)}{RESET}", flush=True)
    started = time.monotonic()
    subprocess.run([SCRIPTS / command[0], *command[1:]], cwd=folder, env=environment(folder, environ), check=True)
    return time.monotonic() - started


def environment(folder: Path, environ: dict[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TERM", "COLUMNS") if name in os.environ}
    return {**kept, "NIM_CACHE_PATH": str(folder / "cache"), **environ}


def show_tree(folder: Path, indent: str = "  ") -> None:
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            print(f"{indent}{path.name} {DIM}-> {shorten(str(path.readlink()))}{RESET}")
        elif path.is_dir():
            print(f"{indent}{path.name}/")
            show_tree(path, indent + "  ")
        else:
            print(f"{indent}{shorten(path.name)} {DIM}{path.stat().st_size} bytes{RESET}")


def shorten(text: str) -> str:
    return text if len(text) < 70 else f"{text[:26]}…{text[-8:]}"


def show_receipt(cache: Path) -> None:
    receipt = next((cache / "receipts").glob("*.json"))
    value = json.loads(receipt.read_text())
    largest = max(value["files"], key=lambda file: file["size"])
    print(f"\n  of the receipt, the entry of the largest file:\n{json.dumps(largest, indent=2)}")


def show_sources(cache: Path) -> None:
    value = json.loads((cache / "receipts" / f"{MIXED}.json").read_text())
    for file in value["files"]:
        print(f"  {file['path']:36} {DIM}{shorten(file['uri'])}{RESET}")


def damage(cache: Path) -> None:
    blob = max(cache.glob("ngc/hub/*/blobs/*"), key=lambda path: path.stat().st_size)
    with blob.open("r+b") as file:
        file.seek(SHARD_BYTES // 2)
        byte = file.read(1)
        file.seek(SHARD_BYTES // 2)
        file.write(bytes([byte[0] ^ 1]))


def say(text: str) -> None:
    print(f"\n{DIM}#{RESET} {text}", flush=True)


if __name__ == "__main__":
    main()
