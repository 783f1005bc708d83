"""
The product in half a minute: a model comes from a server here into a cache, verified; then again without the server.

Everything typed here is what a user would type. No credential and no network beyond this machine is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARD_BYTES = 192 << 20
BOLD, DIM, RESET = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
SCRIPTS = Path(sys.executable).parent


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nim-demo-") as name:
        folder = Path(name)
        server, described = start_server(folder)
        try:
            online(folder, described)
        finally:
            server.terminate()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()
        offline(folder)


def online(folder: Path, described: dict[str, object]) -> None:
    environ = described["environment"]
    assert isinstance(environ, dict)
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


def start_server(folder: Path) -> tuple[subprocess.Popen[str], dict[str, object]]:
    command = [sys.executable, "-m", "nim_core.testing.ngc_server", "--folder", str(folder)]
    server = subprocess.Popen([*command, f"--shard-size={SHARD_BYTES}"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, json.loads(server.stdout.readline())


def profile(folder: Path) -> str:
    lines = (folder / "model_manifest.yaml").read_text().splitlines()
    return next(line.removeprefix("- id: ") for line in lines if line.startswith("- id: "))


def run(folder: Path, environ: dict[str, str], *command: str) -> float:
    shown = [word if len(word) < 40 else f"{word[:12]}…" for word in command]
    print(f"{BOLD}$ {' '.join(shown)}{RESET}", flush=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TERM", "COLUMNS") if name in os.environ}
    started = time.monotonic()
    subprocess.run(
        [SCRIPTS / command[0], *command[1:]],
        cwd=folder,
        env={**kept, **environ, "NIM_CACHE_PATH": str(folder / "cache")},
        check=True,
    )
    return time.monotonic() - started


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
