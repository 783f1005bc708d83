"""
The only reader of the process environment.

Core's variables are declared here, once, as data; a plugin's are declared by the plugin. The reference page, redaction
and ``doctor`` are made from the same declarations.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from nim_core.types import EnvVar, Variables

__all__ = ["CORE_VARIABLES", "Settings"]

_PROXY_VARIABLES: Final = (
    ("https_proxy", "proxy for https:// URLs; the lower-case form wins over the upper-case one"),
    ("http_proxy", "proxy for http:// URLs"),
    ("all_proxy", "proxy for URLs whose own proxy variable is unset"),
    ("no_proxy", "hosts, domains, addresses and networks reached directly, separated by commas; * for all"),
)

CORE_VARIABLES: Final[tuple[EnvVar, ...]] = (
    EnvVar(
        name="NIM_CACHE_PATH",
        kind="path",
        default="/opt/nim/.cache",
        summary="folder of the model cache; must be writable unless it is complete",
    ),
    EnvVar(
        name="NIM_CACHE_PROBE_TIMEOUT",
        kind="seconds",
        default="60",
        summary="how long the cache's file system may take to answer before the command gives up",
    ),
    EnvVar(name="NIM_MANIFEST_PATH", kind="path", summary="manifest file, used when --manifest-file is not given"),
    EnvVar(
        name="NIM_MODEL_PATH",
        summary="model without a manifest: a URI of any scheme, or the absolute path of a folder; used when no "
        "manifest is named",
    ),
    EnvVar(
        name="NIM_MODEL_NAME",
        summary="as NIM_MODEL_PATH, which wins; a plain name, neither URI nor absolute path, is passed over",
    ),
    EnvVar(
        name="NIM_SERVED_MODEL_NAME",
        summary="what the model is called towards clients (default: its URI without scheme and version)",
    ),
    EnvVar(
        name="NIM_REPOSITORY_OVERRIDE",
        summary="where files are fetched instead of where a manifest points, such as s3://bucket/prefix; several, "
        "separated by commas, are tried in their order",
        secret=True,
    ),
    EnvVar(
        name="NIM_REPOSITORY_OVERRIDE_SCHEMES",
        summary="schemes of a manifest's URIs that NIM_REPOSITORY_OVERRIDE redirects, separated by commas (default: "
        "those whose plugins say so)",
    ),
    EnvVar(
        name="NIM_DISABLE_MODEL_DOWNLOAD",
        kind="flag",
        default="0",
        summary="download nothing: every file must be in the cache, and a command that misses some lists them",
    ),
    EnvVar(
        name="NIM_MODEL_PROFILE",
        summary="profile id or name, used when --profiles is not given; default: the best one for the GPUs found",
    ),
    EnvVar(
        name="NIM_HARDWARE_FILE",
        kind="path",
        summary="description of GPUs, as `nim-llm hardware --json` prints it, that stands in for those of this machine",
    ),
    EnvVar(
        name="CUDA_VISIBLE_DEVICES",
        summary="which GPUs of this machine count, by index or start of UUID, separated by commas",
    ),
    EnvVar(
        name="NIM_PEFT_SOURCE", kind="path", summary="folder of LoRA adapters; when set, a profile for LoRA is chosen"
    ),
    EnvVar(
        name="NIM_MAX_MODEL_LEN",
        kind="integer",
        summary="tokens of the longest context, for the estimate of memory (default: the model's own)",
    ),
    EnvVar(
        name="NIM_LOG_LEVEL",
        default="INFO",
        summary="DEBUG, INFO, WARNING, ERROR or CRITICAL",
    ),
    EnvVar(name="NIM_JSONL_LOGGING", kind="flag", default="0", summary="log one JSON object per line"),
    EnvVar(
        name="NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT",
        kind="integer",
        default="8",
        summary="how often one part of a file is tried again before the download fails",
    ),
    EnvVar(
        name="NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS",
        kind="integer",
        default="500",
        summary="milliseconds before the first retry; doubled, with jitter, for each further one",
    ),
    EnvVar(
        name="NIM_SDK_USE_NATIVE_TLS",
        kind="flag",
        default="0",
        summary="trust the system's certificate store even where SSL_CERT_FILE and the like name another",
    ),
    EnvVar(name="NIM_PLUGINS_DISABLED", summary="names of plugins not to load, separated by commas"),
    EnvVar(
        name="NIM_PLUGIN_STRICT",
        kind="flag",
        default="0",
        summary="end with an error when any plugin cannot be loaded, instead of working without it",
    ),
    EnvVar(
        name="NIM_PLUGIN_LOAD_TIMEOUT",
        kind="seconds",
        default="10",
        summary="how long one plugin may take to load before it is set aside; 0 for no limit",
    ),
    *(
        EnvVar(name=name, summary=summary, secret=name.lower() != "no_proxy")
        for lower, summary in _PROXY_VARIABLES
        for name in (lower, lower.upper())
    ),
    EnvVar(name="SSL_CERT_FILE", kind="path", summary="file of trusted certificates (PEM), instead of the system's"),
    EnvVar(
        name="SSL_CERT_DIR",
        kind="path",
        summary="folder of trusted certificates under their hash names; adds to SSL_CERT_FILE or replaces the system's",
    ),
    EnvVar(name="REQUESTS_CA_BUNDLE", kind="path", summary="as SSL_CERT_FILE, which wins"),
    EnvVar(name="CURL_CA_BUNDLE", kind="path", summary="as REQUESTS_CA_BUNDLE, which wins"),
)


class Settings:
    """
    The environment, read once.

    Args:
        environ: Variables of the process, or of a test.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self.variables = self.read(CORE_VARIABLES)

    @classmethod
    def from_process(cls) -> Settings:
        """Return the settings of this process."""
        return cls(os.environ)

    def read(self, declared: Sequence[EnvVar]) -> Variables:
        """Return the values of ``declared``; how a plugin's own variables reach it."""
        return Variables(declared, self._environ)

    def having(self, values: Mapping[str, str]) -> Settings:
        """Return these settings with other values for some variables, as a command's own options give them."""
        return Settings(self._environ | dict(values))

    @property
    def cache_path(self) -> Path:
        """Folder of the model cache."""
        return Path(self.variables.text("NIM_CACHE_PATH") or "")

    @property
    def cache_probe_seconds(self) -> float:
        """How long the cache's file system may take to answer."""
        return self.variables.number("NIM_CACHE_PROBE_TIMEOUT") or 0.0

    @property
    def manifest_path(self) -> Path | None:
        """Manifest the environment names. None when it names none."""
        value = self.variables.text("NIM_MANIFEST_PATH")
        return Path(value) if value else None

    @property
    def model_source(self) -> str | None:
        """Model without a manifest that the environment names. None when it names none."""
        name = self.variables.text("NIM_MODEL_NAME") or ""
        is_source = name.startswith("/") or "://" in name
        return self.variables.text("NIM_MODEL_PATH") or (name if is_source else None)

    @property
    def served_name(self) -> str | None:
        """What the model is called towards clients, where the environment says so."""
        return self.variables.text("NIM_SERVED_MODEL_NAME") or None

    @property
    def hardware_file(self) -> Path | None:
        """Description of GPUs that stands in for those of this machine. None when it does not."""
        value = self.variables.text("NIM_HARDWARE_FILE")
        return Path(value) if value else None

    @property
    def max_model_len(self) -> int | None:
        """Tokens of the longest context. None for the model's own."""
        value = self.variables.number("NIM_MAX_MODEL_LEN")
        return int(value) if value else None

    @property
    def repository_overrides(self) -> tuple[str, ...]:
        """Targets of the override, in order. Empty when there is none."""
        return self._list("NIM_REPOSITORY_OVERRIDE")

    @property
    def overridden_schemes(self) -> frozenset[str] | None:
        """Schemes that are redirected. None: those whose sources say so."""
        return frozenset(self._list("NIM_REPOSITORY_OVERRIDE_SCHEMES")) or None

    @property
    def downloads_disabled(self) -> bool:
        """Whether everything has to be in the cache already."""
        return self.variables.flag("NIM_DISABLE_MODEL_DOWNLOAD")

    @property
    def disabled_plugins(self) -> frozenset[str]:
        """Names of plugins not to load."""
        return frozenset(self._list("NIM_PLUGINS_DISABLED"))

    @property
    def plugin_load_seconds(self) -> float:
        """How long one plugin may take to load; 0 for no limit."""
        return self.variables.number("NIM_PLUGIN_LOAD_TIMEOUT") or 0.0

    @property
    def strict_plugins(self) -> bool:
        """Whether a plugin that cannot be loaded ends the command."""
        return self.variables.flag("NIM_PLUGIN_STRICT")

    def _list(self, name: str) -> tuple[str, ...]:
        """Return the values of a variable that has several, separated by commas."""
        texts = (self.variables.text(name) or "").split(",")
        return tuple(text.strip() for text in texts if text.strip())
