"""Transfer events: every plugin hears them, a broken one is dropped, and the transfer goes on."""

from __future__ import annotations

import threading
import time

import pytest

from nim_core.types import TransferEvent

EVENT = TransferEvent(kind="progress", uri="s://a/b", file="x", bytes=10)

LISTENER = "heard = []\n@hookimpl\ndef nim_transfer_event(event):\n    heard.append(event)\n"


def test_every_plugin_hears(site):
    site.plugin("a", LISTENER)
    site.plugin("b", LISTENER + "    return 'ignored'\n")
    registry = site.load()
    registry.notify(EVENT)
    registry.finish_telling()

    import installed_dist_a_a
    import installed_dist_b_b

    assert (installed_dist_a_a.heard, installed_dist_b_b.heard) == ([EVENT], [EVENT])


def test_a_later_transfer_is_heard_too(site):
    site.plugin("a", LISTENER)
    registry = site.load()
    for _ in range(2):
        registry.notify(EVENT)
        registry.finish_telling()

    import installed_dist_a_a

    assert installed_dist_a_a.heard == [EVENT, EVENT]


@pytest.mark.parametrize("raised", ["ValueError('x')", "SystemExit", "KeyboardInterrupt"])
def test_a_failing_plugin_is_reported_once_and_hears_no_more(site, raised, logged):
    site.plugin("a", LISTENER + f"    raise {raised}\n", version="1.2")
    site.plugin("b", LISTENER)
    registry = site.load()

    for _ in range(3):
        registry.notify(EVENT)
    registry.finish_telling()

    import installed_dist_a_a
    import installed_dist_b_b

    assert (len(installed_dist_a_a.heard), len(installed_dist_b_b.heard)) == (1, 3)
    (entry,) = logged
    assert entry["event"] == "transfer_event_hook_failed"
    assert (entry["plugin"], entry["distribution"], entry["version"]) == ("a", "dist-a", "1.2")


def test_a_plugin_hears_one_event_after_the_other_from_all_threads(site, logged):
    site.plugin(
        "a",
        "import time\nheard, within = [], []\n"
        "@hookimpl\ndef nim_transfer_event(event):\n"
        "    within.append(1)\n    time.sleep(0.001)\n    assert len(within) == 1\n    within.pop()\n"
        "    heard.append(event)\n",
    )
    registry = site.load()
    threads = [threading.Thread(target=registry.notify, args=(EVENT,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.finish_telling()

    import installed_dist_a_a

    assert installed_dist_a_a.heard == [EVENT] * 20
    assert logged == []


BLOCKS = "import threading\ngate = threading.Event()\n@hookimpl\ndef nim_transfer_event(event):\n    gate.wait(60)\n"


def test_a_plugin_that_blocks_holds_nobody_up(site, logged):
    site.plugin("a", BLOCKS)
    site.plugin("b", LISTENER)
    registry = site.load()
    began = time.monotonic()
    registry.notify(EVENT)
    registry.finish_telling(0.2)
    took = time.monotonic() - began

    import installed_dist_a_a
    import installed_dist_b_b

    installed_dist_a_a.gate.set()
    assert installed_dist_b_b.heard == [EVENT]
    assert took < 10
    assert [(it["plugin"], it["reason"]) for it in logged] == [("a", "still busy 0.2 s after the transfer")]


def test_a_plugin_that_does_not_keep_up_is_dropped(site, logged):
    site.plugin("a", BLOCKS)
    registry = site.load()
    for _ in range(2010):
        registry.notify(EVENT)

    import installed_dist_a_a

    installed_dist_a_a.gate.set()
    assert [it["reason"] for it in logged] == ["does not keep up: 2000 events wait"]
