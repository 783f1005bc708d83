"""
A plugin that misbehaves while it loads: it alone suffers, the process is as before, and the log names it.

What cannot be undone in one process is said by :mod:`nim_core.registry.isolation`, and not tested here: attributes put
into core's own modules and classes, ``os._exit``, C code that never returns.
"""

from __future__ import annotations

import signal
import sys
import threading
import time

import pytest

import nim_core.errors
from nim_core.registry import load_registry
from nim_core.registry.process_state import PARTS
from nim_core.settings import Settings


def effects(registry, name):
    (plugin,) = [plugin for plugin in registry.plugins if plugin.name == name]
    return {effect.kind: effect.detail for effect in plugin.side_effects}


def state():
    """The process as the guard sees it, without what importing a module adds."""
    return {part.kind: part.read() for part in PARTS if part.kind not in {"modules", "threads"}}


MEDDLING = [
    pytest.param("import os\nos.environ['MEDDLED'] = 'hunter22'", {"environment": "MEDDLED"}, id="variable"),
    pytest.param("import os\ndel os.environ['PATH']", {"environment": "PATH"}, id="variable-gone"),
    pytest.param("import os\nos.chdir('/')", {"current folder": "/"}, id="folder"),
    pytest.param("import os\nos.umask(0)", {"umask": "0o0"}, id="umask"),
    pytest.param(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGINT, print)",
        {"signals": "SIGINT, SIGTERM"},
        id="signals",
    ),
    pytest.param("import sys\nsys.stdout = sys.stderr = None", {"streams": "stderr, stdout"}, id="streams"),
    pytest.param("import sys\nsys.stdout.close()", {}, id="closed-stdout"),
    pytest.param("import sys\nsys.excepthook = print", {"streams": "excepthook"}, id="excepthook"),
    pytest.param("import sys\nsys.path.insert(0, '/meddled')", {"sys.path": "/meddled"}, id="path"),
    pytest.param("import sys\nsys.path.clear()", {"sys.path": "taken from, or in another order"}, id="no-path"),
    pytest.param("import sys\nsys.modules['nim_core.errors'] = None", {"modules": "nim_core.errors"}, id="module"),
    pytest.param(
        "import sys\nsys.modules['nim_core.new'] = sys\nsys.modules['other_new'] = None",
        {"modules": "nim_core.new, other_new"},
        id="modules-to-come",
    ),
    pytest.param("import sys\ndel sys.modules['json']", {"modules": "json"}, id="module-gone"),
    pytest.param(
        "import logging\nlogging.basicConfig(level=1, force=True)", {"logging": "handlers or level"}, id="logging"
    ),
    pytest.param("import logging\nlogging.disable()", {"logging": "handlers or level"}, id="logging-off"),
    pytest.param("import socket\nsocket.setdefaulttimeout(0.001)", {"socket timeout": "0.001 s"}, id="timeout"),
    pytest.param(
        "import locale\nlocale.setlocale(locale.LC_CTYPE, 'POSIX')\nlocale.setlocale(locale.LC_NUMERIC, 'C.UTF-8')",
        {"locale": "*"},
        id="locale",
    ),
    pytest.param(
        "import warnings\nwarnings.simplefilter('error', UserWarning)",
        {"warnings": "makes errors of warnings"},
        id="warnings",
    ),
    pytest.param("print('hello\\n  you')", {"printed": "hello you"}, id="prints"),
    pytest.param("import sys\nsys.stdout.buffer.write(b'\\xff')", {"printed": "\ufffd"}, id="prints-bytes"),
    pytest.param(
        "import os\nos.umask(0)\nprint('x')\nraise ValueError", {"umask": "0o0", "printed": "x"}, id="and-fails"
    ),
    pytest.param(
        "import os\n@hookimpl\ndef nim_register_sources():\n    os.umask(0)\n    print('y')\n    return []",
        {"umask": "0o0", "printed": "y"},
        id="in-a-hook",
    ),
]


@pytest.mark.parametrize(("code", "expected"), MEDDLING)
def test_what_a_plugin_changes_is_changed_back_and_told(site, capsys, logged, code, expected):
    site.source_plugin("aaa")
    site.plugin("bad", code)
    site.source_plugin("zzz")
    before, modules = state(), sys.modules.copy()

    registry = site.load()

    assert state() == before
    assert {name for name, module in modules.items() if sys.modules.get(name) is not module} == set()
    found = effects(registry, "bad")
    assert found.keys() == expected.keys()
    assert [kind for kind, detail in expected.items() if detail not in {found[kind], "*"}] == []
    assert [plugin.name for plugin in registry.plugins if plugin.side_effects] == (["bad"] if expected else [])
    told = [(it["plugin"], it["distribution"], it["effects"]) for it in logged if it["event"] == "plugin_side_effects"]
    assert told == ([("bad", "dist-bad", [f"{kind}: {found[kind]}" for kind in found])] if expected else [])
    assert "hunter22" not in str(logged)
    assert sorted(registry.styles) == ["aaa", "zzz"]
    assert capsys.readouterr().out == ""


def test_the_guard_sees_every_part_of_the_process_that_it_names():
    tried = {kind for row in MEDDLING for kind in row.values[1]} - {"printed"}

    assert {part.kind for part in PARTS} == tried | {"threads"}


def test_a_thread_that_is_left_behind_is_told(site, logged):
    site.plugin(
        "bad",
        "import threading\ngate = threading.Event()\n"
        "threading.Thread(target=gate.wait, args=(60,), name='left', daemon=True).start()",
    )
    registry = site.load()

    import installed_dist_bad_bad

    installed_dist_bad_bad.gate.set()
    assert effects(registry, "bad") == {"threads": "left"}


def test_what_a_plugin_breaks_beyond_repair_is_told(site, logged, tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    site.plugin("bad", f"import os\nos.chdir('/')\nos.rmdir({str(folder)!r})")

    assert effects(site.load(), "bad") == {"current folder": "cannot be undone: FileNotFoundError"}


HANGS = {
    "import": "import time\ntime.sleep(30)",
    "hook": "import time\n@hookimpl\ndef nim_register_sources():\n    time.sleep(30)\n    return []",
    "swallows": "import time\nfor _ in range(2):\n  try:\n    time.sleep(30)\n  except BaseException:\n    pass",
    "computes": "while True:\n    pass",
    "lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "network": "import socket\nwith socket.create_server(('127.0.0.1', 0)) as there:\n    there.accept()",
}


@pytest.mark.parametrize("code", HANGS.values(), ids=HANGS)
def test_a_plugin_that_hangs_is_ended_and_set_aside(site, logged, code):
    site.source_plugin("aaa")
    site.plugin("bad", code)
    site.source_plugin("zzz")
    handler = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()

    registry = site.load(NIM_PLUGIN_LOAD_TIMEOUT="0.3")

    assert time.monotonic() - began < 10
    assert sorted(registry.styles) == ["aaa", "zzz"]
    (bad,) = [plugin for plugin in registry.plugins if plugin.name == "bad"]
    if "range(2)" in code:
        assert (bad.status, effects(registry, "bad").keys()) == ("active", {"seconds"})
    else:
        assert "LoadTimeoutError: not done after 0.3 s, at " in bad.reason
        assert "NIM_PLUGIN_LOAD_TIMEOUT" in bad.hint
    assert signal.getsignal(signal.SIGALRM) is handler


def test_a_timer_that_was_running_goes_on(site, logged):
    site.plugin("slow", "import time\ntime.sleep(0.2)")
    earlier = signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        site.load(NIM_PLUGIN_LOAD_TIMEOUT="5")
        left, _ = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *earlier)

    assert 90 < left < 99.9


def test_there_may_be_no_limit(site, logged):
    site.plugin("slow", "import signal\nleft = signal.getitimer(signal.ITIMER_REAL)[0]\nsignal.setitimer(0, 0)")
    earlier = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        site.load(NIM_PLUGIN_LOAD_TIMEOUT="0")
    finally:
        signal.setitimer(signal.ITIMER_REAL, *earlier)

    import installed_dist_slow_slow

    assert installed_dist_slow_slow.left == 0


def test_a_slow_plugin_is_named_with_the_way_to_do_without(site, logged):
    site.plugin("slow", "import time\ntime.sleep(1.1)")

    assert float(effects(site.load(), "slow")["seconds"]) > 1
    (entry,) = logged
    assert entry["plugin"] == "slow"
    assert entry["hint"] == "name slow in NIM_PLUGINS_DISABLED to do without it"


def test_another_thread_than_the_main_one_may_load(site, logged):
    site.plugin("bad", "import os\nos.umask(0)")
    found = []
    thread = threading.Thread(target=lambda: found.append(site.load()))
    thread.start()
    thread.join()

    assert effects(found[0], "bad") == {"umask": "0o0"}


class TestThousandSchemes:
    MANY = "@hookimpl\ndef nim_register_sources():\n    return [source('many', *(f's{i}' for i in range(1000)))]\n"

    def test_they_are_its_own(self, site, logged):
        site.source_plugin("good")
        site.plugin("many", self.MANY)

        registry = site.load()

        assert len(registry.styles) == 1001
        assert logged == []

    def test_whose_schemes_it_claims_is_named_with_it_and_others_work(self, site, logged):
        site.source_plugin("good")
        site.source_plugin("s3")
        site.plugin("many", self.MANY)

        registry = site.load()

        assert list(registry.styles) == ["good"]
        with pytest.raises(nim_core.errors.PluginConflictError) as caught:
            registry.parse_uri("s3://a/b")
        assert "scheme s3:// is claimed by many (dist-many 1.0) and s3 (dist-s3 1.0)" in caught.value.message


def test_installed_plugins_leave_the_process_as_it_was():
    plugins = load_registry(Settings({})).plugins

    assert [(plugin.name, plugin.side_effects) for plugin in plugins if plugin.side_effects] == []
