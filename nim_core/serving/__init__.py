"""Serving: the arguments of an engine, the process it runs in, and the front that clients and probes talk to."""
