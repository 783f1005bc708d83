"""One misbehaving plugin beside those that a download needs: the download is complete, its output is data alone."""

from __future__ import annotations

import json

import pytest

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.ngc_models import NgcModel

MODEL = NgcModel(files={"config.json": inline('{"a": 1}\n'), "weights.bin": PatternContent(length=70_000)})

BAD = {
    "raises-at-import": ("raise ValueError('no')", "plugin_quarantined"),
    "exits-at-import": ("raise SystemExit(3)", "plugin_quarantined"),
    "raises-in-a-hook": ("@hookimpl\ndef nim_register_sources():\n    raise KeyError('x')", "plugin_quarantined"),
    "exits-in-a-hook": ("@hookimpl\ndef nim_register_sinks():\n    raise SystemExit(3)", "plugin_quarantined"),
    "hangs-at-import": ("import time\ntime.sleep(60)", "LoadTimeoutError: not done after 1 s"),
    "prints-everywhere": (
        (
            "import os, subprocess\nprint('{\"noise\": 1}')\nos.write(1, b'noise\\n')\n"
            "subprocess.run(['echo', 'noise'])\n"
            "@hookimpl\ndef nim_provide_credential(request):\n    print('noise')\n    os.write(1, b'noise\\n')\n"
            "@hookimpl\ndef nim_transfer_event(event):\n    print('noise', flush=True)\n"
        ),
        'effects=["printed: {\\"noise\\": 1}"]',
    ),
    "prints-at-exit": ("import atexit\natexit.register(print, 'noise')", ""),
    "thousand-schemes": (
        "@hookimpl\ndef nim_register_sources():\n    return [source('many', *(f's{i}' for i in range(1000)))]\n",
        "scheme s3:// is claimed by bad (dist-bad 1.0) and s3 (nim-source-s3",
    ),
    "meddles": (
        (
            "import locale, logging, os, signal, socket, sys, warnings\n"
            "os.environ.clear()\nos.chdir('/')\nos.umask(0o777)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "socket.setdefaulttimeout(0.0001)\nwarnings.simplefilter('error')\nlogging.disable()\n"
            "logging.basicConfig(stream=sys.stdout, force=True)\nsys.path.clear()\nsys.stdout = sys.stderr = None\n"
            "sys.modules['nim_core.plan'] = sys.modules['nim_core.fetching'] = sys.modules['json'] = None\n"
        ),
        "plugin_side_effects",
    ),
    "raises-when-asked-for-credentials": (
        "@hookimpl(tryfirst=True)\ndef nim_provide_credential(request):\n    raise KeyError('x')",
        "plugin_hook_failed",
    ),
    "answers-nonsense": (
        "@hookimpl(tryfirst=True)\ndef nim_provide_credential(request):\n    return 'nonsense'",
        "plugin_hook_failed",
    ),
    "raises-when-told": (
        "@hookimpl\ndef nim_transfer_event(event):\n    raise ValueError('x')",
        "transfer_event_hook_failed",
    ),
    "blocks-when-told": (
        "import time\n@hookimpl\ndef nim_transfer_event(event):\n    time.sleep(60)",
        "transfer_event_hook_failed",
    ),
}


@pytest.mark.parametrize(("code", "said"), BAD.values(), ids=BAD)
def test_a_download_of_another_scheme_is_complete(machine, serve, site, code, said):
    site.plugin("bad", code)
    served = serve(MODEL)
    ended = machine.run(
        *("--manifest-file", served.manifest, "--profiles", served.profile, "--json"),
        env={
            **served.server.environment(),
            "PYTHONPATH": str(site.folder),
            "NIM_PLUGIN_LOAD_TIMEOUT": "1",
        },
    ).check()

    assert machine.cache.differences(MODEL) == []
    json.loads(ended.stdout)
    assert "noise" not in ended.stdout
    assert said in ended.stderr
    assert ended.seconds < 20


def test_the_usual_limit_ends_a_hang(machine, serve, site):
    site.plugin("bad", "import time\ntime.sleep(60)")
    served = serve(MODEL)
    ended = machine.run(
        *("--manifest-file", served.manifest, "--profiles", served.profile),
        env={**served.server.environment(), "PYTHONPATH": str(site.folder)},
    ).check()

    assert machine.cache.differences(MODEL) == []
    assert "not done after 10 s" in ended.stderr
    assert 10 <= ended.seconds < 25


def test_a_scheme_that_was_taken_says_who_took_it(machine, site):
    site.source_plugin("bad", "ngc")
    ended = machine.run("--model-uri", "ngc://nim/meta/sample-llm:1", env={"PYTHONPATH": str(site.folder)})

    assert ended.code == 22
    assert "bad (dist-bad 1.0)" in ended.last
    assert "ngc (nim-source-ngc" in ended.last


NOISY_SOURCE = """
import os

class Noisy(EmptySource):
    def list_files(self, uri):
        print("noise")
        os.write(1, b"noise")
        return Listing(uri=uri, files=(RemoteFile(path="config.json", size=3),))
    def locate(self, uri, file):
        print("noise", flush=True)
        return LocalObject(path=FILE)

@hookimpl
def nim_register_sources():
    return [source("noisy", factory=Noisy)]
"""


def test_what_a_source_prints_while_it_works_is_no_data(machine, site):
    file = machine.folder / "config.json"
    file.write_text("{}\n")
    site.plugin("noisy", f"import pathlib\nFILE = pathlib.Path({str(file)!r})\n{NOISY_SOURCE}")
    ended = machine.run("--model-uri", "noisy://team/model:1", "--json", env={"PYTHONPATH": str(site.folder)}).check()

    json.loads(ended.stdout)
    assert ended.stderr.count("noise\n") >= 1
    assert "noise" not in ended.stdout.replace("noisy", "")
