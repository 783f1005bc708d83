"""
The command line: a command parses its arguments, calls one function and renders what came back.

Importing this package, and showing help, must stay cheap: no module here imports at its top what only a running command
needs (httpx, structlog, pycurl, yaml, rich, plugins).
"""
