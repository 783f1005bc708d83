"""What the environment says about serving, beyond what downloading needs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.settings import Settings
from nim_core.types import EnvVar, Exposure, Variables

__all__ = ["SERVING_VARIABLES", "ServingSettings", "read_settings"]

SERVING_VARIABLES: Final[tuple[EnvVar, ...]] = (
    EnvVar(name="NIM_SERVER_PORT", kind="integer", summary="port that clients are served on (default: 8000)"),
    EnvVar(name="NIM_HTTP_API_PORT", kind="integer", summary="as NIM_SERVER_PORT, which wins"),
    EnvVar(
        name="NIM_HEALTH_PORT",
        kind="integer",
        summary="port of its own for health and metadata; the engine then serves clients itself, without a proxy",
    ),
    EnvVar(name="NIM_PASSTHROUGH_ARGS", summary="arguments for the engine, as on its command line", secret=True),
    EnvVar(
        name="NIM_SERVING_BACKEND",
        summary="name of the backend to serve by (default: the one that the profile names, else one that can)",
    ),
    EnvVar(
        name="NIM_PEFT_REFRESH_INTERVAL",
        kind="seconds",
        summary="how often NIM_PEFT_SOURCE is looked at for adapters that came, went or changed (default: at the start "
        "only)",
    ),
    EnvVar(
        name="NIM_PEFT_API_TIMEOUT_SECS",
        kind="seconds",
        default="60",
        summary="how long the engine may take to load or unload an adapter",
    ),
    EnvVar(
        name="NIM_SSL_MODE",
        default="disabled",
        summary="disabled, TLS, or MTLS, by which only clients with a certificate may connect",
    ),
    EnvVar(name="NIM_SSL_CERTS_PATH", kind="path", summary="file of the server's certificates (PEM)"),
    EnvVar(name="NIM_SSL_KEY_PATH", kind="path", summary="file of the key of the server's certificate (PEM)"),
    EnvVar(
        name="NIM_SSL_CA_CERTS_PATH", kind="path", summary="file of the authorities of clients' certificates, for MTLS"
    ),
    EnvVar(name="NIM_CORS_ALLOW_ORIGINS", default="*", summary="origins that browsers may call from, by commas"),
    EnvVar(
        name="NIM_CORS_ALLOW_METHODS",
        default="GET, POST, PUT, DELETE, PATCH, OPTIONS",
        summary="methods that browsers may use from other origins",
    ),
    EnvVar(name="NIM_CORS_ALLOW_HEADERS", default="*", summary="headers that browsers may send from other origins"),
    EnvVar(name="NIM_CORS_EXPOSE_HEADERS", summary="headers of answers that browsers show to pages of other origins"),
    EnvVar(
        name="NIM_CORS_MAX_AGE",
        kind="integer",
        default="3600",
        summary="seconds for which browsers remember what they may do",
    ),
)

_DEFAULT_PORT: Final = 8000


@frozen(kw_only=True)
class ServingSettings:
    """
    What the environment says about serving.

    Attributes:
        port: Port that clients are served on.
        health_port: Port of its own for health and metadata. None: there is none, and clients are proxied.
        passthrough: Arguments for the engine.
        backend: Name of the backend asked for. None: any.
        peft_source: Folder of LoRA adapters. None: none.
        peft_seconds: Time between two looks at it. None: only at the start.
        peft_timeout: Seconds that the engine may take to load an adapter.
        exposure: TLS and CORS, of whatever clients talk to.
        exposed_headers: Values of Access-Control-Expose-Headers.
        cors_seconds: Value of Access-Control-Max-Age.
    """

    port: int = _DEFAULT_PORT
    health_port: int | None = None
    passthrough: tuple[str, ...] = ()
    backend: str | None = None
    peft_source: Path | None = None
    peft_seconds: float | None = None
    peft_timeout: float = 60.0
    exposure: Exposure
    exposed_headers: tuple[str, ...] = ()
    cors_seconds: int = 3600


def read_settings(settings: Settings) -> ServingSettings:
    """
    Read the variables.

    Raises:
        ConfigError: One of them cannot be read, or they contradict each other.
    """
    variables = settings.read(SERVING_VARIABLES)
    port = _port(variables, "NIM_SERVER_PORT") or _port(variables, "NIM_HTTP_API_PORT") or _DEFAULT_PORT
    health_port = _port(variables, "NIM_HEALTH_PORT")
    peft_source = settings.variables.text("NIM_PEFT_SOURCE")
    return ServingSettings(
        port=port,
        health_port=None if health_port == port else health_port,
        passthrough=_words(variables),
        backend=variables.text("NIM_SERVING_BACKEND"),
        peft_source=Path(peft_source) if peft_source else None,
        peft_seconds=variables.number("NIM_PEFT_REFRESH_INTERVAL") or None,
        peft_timeout=variables.number("NIM_PEFT_API_TIMEOUT_SECS") or 60.0,
        exposure=_exposure(variables),
        exposed_headers=_list(variables, "NIM_CORS_EXPOSE_HEADERS"),
        cors_seconds=int(variables.number("NIM_CORS_MAX_AGE") or 0),
    )


def _port(variables: Variables, name: str) -> int | None:
    number = variables.number(name)
    if number is not None and not 0 < number < 65536:
        raise ConfigError(f"{name} is not a port: {int(number)}", hint=f"set {name} to a number from 1 to 65535")
    return None if number is None else int(number)


def _words(variables: Variables) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(variables.text("NIM_PASSTHROUGH_ARGS") or ""))
    except ValueError as exc:
        raise ConfigError(
            f"NIM_PASSTHROUGH_ARGS cannot be split into words: {exc}", hint="quote it as for a shell"
        ) from None


def _list(variables: Variables, name: str) -> tuple[str, ...]:
    texts = (variables.text(name) or "").split(",")
    return tuple(text.strip() for text in texts if text.strip())


def _exposure(variables: Variables) -> Exposure:
    mode = (variables.text("NIM_SSL_MODE") or "disabled").strip().lower()
    if mode not in {"disabled", "tls", "mtls"}:
        raise ConfigError(
            f"NIM_SSL_MODE is not a mode: {variables.text('NIM_SSL_MODE')}", hint="it is disabled, TLS or MTLS"
        )
    needed = {"disabled": (), "tls": _OF_SERVER, "mtls": (*_OF_SERVER, "NIM_SSL_CA_CERTS_PATH")}[mode]
    paths = {name: _file(variables, name, mode) for name in needed}
    return Exposure(
        certificate=paths.get("NIM_SSL_CERTS_PATH"),
        key=paths.get("NIM_SSL_KEY_PATH"),
        client_authority=paths.get("NIM_SSL_CA_CERTS_PATH"),
        allowed_origins=_list(variables, "NIM_CORS_ALLOW_ORIGINS"),
        allowed_methods=_list(variables, "NIM_CORS_ALLOW_METHODS"),
        allowed_headers=_list(variables, "NIM_CORS_ALLOW_HEADERS"),
    )


_OF_SERVER: Final = ("NIM_SSL_CERTS_PATH", "NIM_SSL_KEY_PATH")


def _file(variables: Variables, name: str, mode: str) -> Path:
    text = variables.text(name)
    if not text:
        raise ConfigError(f"NIM_SSL_MODE is {mode.upper()}, and {name} is not set", hint=f"set {name} to a PEM file")
    try:
        with Path(text).open("rb"):
            return Path(text)
    except OSError as exc:
        raise ConfigError(f"cannot read {name}: {text} ({(exc.strerror or str(exc)).lower()})") from exc
