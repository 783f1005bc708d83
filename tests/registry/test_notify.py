"""Transfer events: every plugin hears them, a broken one is dropped, and the transfer goes on."""

from __future__ import annotations

import threading

import pytest

from nim_core.types import TransferEvent

EVENT = TransferEvent(kind="progress", uri="s://a/b", file="x", bytes=10)

LISTENER = "heard = []\n@hookimpl\ndef nim_transfer_event(event):\n    heard.append(event)\n"


def test_every_plugin_hears(site):
    site.plugin("a", LISTENER)
    site.plugin("b", LISTENER + "    return 'ignored'\n")
    site.load().notify(EVENT)

    import installed_dist_a_a
    import installed_dist_b_b

    assert (installed_dist_a_a.heard, installed_dist_b_b.heard) == ([EVENT], [EVENT])


@pytest.mark.parametrize("raised", ["ValueError('x')", "SystemExit"])
def test_a_failing_plugin_is_reported_once_and_hears_no_more(site, raised, logged):
    site.plugin("a", LISTENER + f"    raise {raised}\n", version="1.2")
    site.plugin("b", LISTENER)
    registry = site.load()

    for _ in range(3):
        registry.notify(EVENT)

    import installed_dist_a_a
    import installed_dist_b_b

    assert (len(installed_dist_a_a.heard), len(installed_dist_b_b.heard)) == (1, 3)
    (entry,) = logged
    assert entry["event"] == "transfer_event_hook_failed"
    assert (entry["plugin"], entry["distribution"], entry["version"]) == ("a", "dist-a", "1.2")


def test_threads_that_fail_together_report_once(site, logged):
    site.plugin(
        "a",
        "import threading\nbarrier = threading.Barrier(4)\n"
        "@hookimpl\ndef nim_transfer_event(event):\n    barrier.wait(10)\n    raise ValueError\n",
    )
    registry = site.load()
    threads = [threading.Thread(target=registry.notify, args=(EVENT,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [entry["event"] for entry in logged] == ["transfer_event_hook_failed"]


def test_an_interrupt_is_not_the_plugins_failure(site):
    site.plugin("a", "@hookimpl\ndef nim_transfer_event(event):\n    raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        site.load().notify(EVENT)
