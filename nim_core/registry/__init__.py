"""
Which plugins there are, and the only way to call them.

``load_registry`` finds plugins through entry points in group ``nim_core.plugins``, checks each one and sets aside what
is broken; the :class:`Registry` it returns has one typed method per hook. Nothing else in core touches pluggy::

    discovery    installed distributions → candidates, in one order whatever the order of sys.path
    checks       what a candidate must be: compatible, hooks spelled right, records well-formed
    loading      candidates → PluginInfo: active, disabled, or quarantined with a reason
    isolation    what a plugin does to the process while it loads, undone (process_state: the parts of a process)
    listening    telling plugins of a transfer, so that none holds it up
    guard        what a plugin raises or returns → the contract's errors, with the plugin's name
    abilities    which of the contract's optional Protocols a source, sink or backend follows
    origin       where an installed plugin came from
    reports      what the log says of plugins that do not do as they should
    credentials  answers remembered until they expire
    manager      Registry, load_registry
"""

from nim_core.registry.info import PluginInfo
from nim_core.registry.manager import Registry, load_registry

__all__ = ["PluginInfo", "Registry", "load_registry"]
