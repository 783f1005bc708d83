"""A port that is listened on, in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from nim_core.errors import BackendError, ConfigError
from nim_core.serving.proxy import silence_broken_answers
from nim_core.types import Exposure

__all__ = ["Listener"]

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_LEAST_SECONDS: Final = 0.1
"""For connections that have nothing to end; without any, the server says that it broke them off."""

_BACKLOG: Final = 2048
_LAST_PORT: Final = 65535
_CERTIFICATES: Final = "NIM_SSL_CERTS_PATH"
_KEY: Final = "NIM_SSL_KEY_PATH"
_AUTHORITY: Final = "NIM_SSL_CA_CERTS_PATH"

_log = logging.getLogger(__name__)


class Listener:
    """
    An application behind a port.

    Args:
        app: What answers.
        host: Address, or host name, to listen on; ``0.0.0.0`` or ``::`` for all.
        port: 0: any that is free.
        exposure: Certificate, key and authority. None, or one without a certificate: plain HTTP.
        failed: Called, on the listener's thread, when it ends without having been asked to.
        variable: The variable that the port came from, for messages.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        exposure: Exposure | None = None,
        *,
        failed: Callable[[], None] | None = None,
        variable: str = "NIM_SERVER_PORT",
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._exposure = exposure or Exposure()
        self._variable = variable
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.failed = failed

    @property
    def port(self) -> int:
        """The port it listens on, once it does."""
        return self._port

    @property
    def url(self) -> str:
        """Where it is reached on this machine."""
        scheme = "https" if self._exposure.certificate else "http"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)  # noqa: S104
        return f"{scheme}://{f'[{host}]' if ':' in host and '[' not in host else host}:{self._port}"

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """
        Listen; returns when requests are answered.

        Raises:
            ConfigError: The port is taken or not allowed, or the certificate, its key or the authority cannot be used.
            BackendError: The server does not start for another reason.
        """
        check_certificates(self._exposure)
        bound = self._bind()
        self._port = bound.getsockname()[1]
        self._server = _Server(self._config())
        self._thread = threading.Thread(target=self._run, args=(self._server, bound), name="front", daemon=True)
        self._thread.start()
        if not self._server.settled.wait(_START_SECONDS) or not self._server.started:
            raise BackendError(f"the front did not start on {self._host}:{self._port}")

    def stop(self, grace_seconds: float) -> bool:
        """
        Take no new connections, let requests in flight end, and end.

        Args:
            grace_seconds: How long requests may take; then they are broken off.

        Returns:
            Whether all of them ended by themselves.
        """
        server, thread = self._server, self._thread
        self._stopping = True
        if server is None or thread is None:
            return True
        grace_seconds = max(grace_seconds, _LEAST_SECONDS)
        server.config.timeout_graceful_shutdown = grace_seconds  # type: ignore[assignment] # awaited; int by declaration
        server.should_exit = True
        thread.join(grace_seconds + _STOP_SECONDS)
        return not thread.is_alive() and not server.broke_off

    def abort(self) -> None:
        """Break off what :meth:`stop`, on another thread, waits for."""
        if self._server is not None:
            self._server.break_off()

    def _run(self, server: _Server, bound: socket.socket) -> None:
        try:
            server.run(sockets=[bound])
        except BaseException:  # noqa: BLE001 -- whatever it is, the process has to end for it
            _log.exception("the front failed")
        finally:
            bound.close()
            server.settled.set()
            if not self._stopping and self.failed is not None:
                self.failed()

    def _bind(self) -> socket.socket:
        if not 0 <= self._port <= _LAST_PORT:
            raise ConfigError(f"{self._variable} is no port: {self._port}")
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        dual = family is socket.AF_INET6 and self._host == "::" and socket.has_dualstack_ipv6()
        try:
            bound = socket.create_server((self._host, self._port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
        except OSError as error:
            raise self._refusal(error) from error
        # connections inherit it; asyncio sets it only on sockets that were made with the number of TCP, which this one
        # was not, and an answer in two parts would wait 40 ms for the client's acknowledgement
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return bound

    def _refusal(self, error: OSError) -> ConfigError:
        where = f"{self._host}:{self._port}"
        if error.errno == errno.EADDRINUSE:
            return ConfigError(
                f"the port is taken: {where}", hint=f"set {self._variable} to another port, or end what listens there"
            )
        if error.errno == errno.EACCES:
            return ConfigError(
                f"this user may not listen on the port: {where}", hint=f"set {self._variable} to a port above 1023"
            )
        return ConfigError(f"cannot listen on {where}: {error.strerror or error}")

    def _config(self) -> uvicorn.Config:
        exposure = self._exposure
        return uvicorn.Config(
            self._app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            backlog=_BACKLOG,
            ssl_certfile=exposure.certificate,
            ssl_keyfile=exposure.key,
            ssl_ca_certs=None if exposure.client_authority is None else str(exposure.client_authority),
            ssl_cert_reqs=ssl.CERT_NONE if exposure.client_authority is None else ssl.CERT_REQUIRED,
        )


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it has started, and whether it broke requests off."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()
        self.broke_off = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        silence_broken_answers()
        self.settled.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end for as long as they may."""
        requests = [*self.server_state.tasks]
        await super().shutdown(sockets=sockets)
        self.broke_off = any(request.cancelling() for request in requests)

    def break_off(self) -> None:
        """End all requests now; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and so have they
                self._loop.call_soon_threadsafe(self._cancel_requests)

    def _cancel_requests(self) -> None:
        for task in [*self.server_state.tasks]:
            task.cancel()


def check_certificates(exposure: Exposure) -> None:
    """
    Read all that TLS needs, so that what cannot be used is named.

    Raises:
        ConfigError: A file cannot be read or holds something else, or the key is another certificate's.
    """
    if exposure.certificate is None:
        if exposure.key is not None or exposure.client_authority is not None:
            raise ConfigError("TLS needs a certificate", hint=f"set {_CERTIFICATES}")
        return
    for variable, path in ((_CERTIFICATES, exposure.certificate), (_KEY, exposure.key)):
        _check_readable(variable, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(exposure.certificate, exposure.key, password="")
    except ssl.SSLError as error:
        raise _refused_pair(exposure, error) from error
    if exposure.client_authority is not None:
        _check_readable(_AUTHORITY, exposure.client_authority)
        try:
            context.load_verify_locations(exposure.client_authority)
        except ssl.SSLError as error:
            raise ConfigError(f"{_AUTHORITY} holds no certificates: {exposure.client_authority}") from error


def _check_readable(variable: str, path: Path | None) -> None:
    if path is None:  # certificates and key in one file
        return
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{variable} cannot be read: {path}: {error.strerror}") from error


def _refused_pair(exposure: Exposure, error: ssl.SSLError) -> ConfigError:
    if error.reason == "KEY_VALUES_MISMATCH":
        return ConfigError(
            f"the key of {_KEY} does not belong to the certificate of {_CERTIFICATES}: "
            f"{exposure.key}, {exposure.certificate}"
        )
    return ConfigError(
        f"{_CERTIFICATES} and {_KEY} hold no certificate with its key, in PEM and without a password: "
        f"{exposure.certificate}, {exposure.key or exposure.certificate}"
    )
