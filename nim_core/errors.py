"""
Everything that may go wrong, and what it means for the user.

The class says what happened. ``exit_code`` is what the command ends with, ``retryable`` says whether the same request
may succeed later, ``hint`` is the way out in the user's own words::

    NimError                              1
      ConfigError                        10   a setting, flag or combination that cannot work
        InvalidUriError                  11
        ManifestError                    12
        ProfileError                     13
        OverrideUnsupportedError         14
      PluginError                        20   a plugin misbehaved
        PluginLoadError                  21
        PluginConflictError              22
        PluginIncompatibleError          23
        NoPluginForSchemeError           24
      SourceError                        30   the place a model lives said no
        NotFoundError                    31   404
        AuthenticationError              32   401: who are you
        PermissionDeniedError            33   403: not you
          EntitlementError               34   402: no subscription covers this
          RegionBlockedError             35   451: not from where you are
        LicenseError                     36   412: terms not accepted yet
        RateLimitedError                 37   429
        StalledError                     38   no bytes, or far too few, for too long
        TransientError                   39   cut, refused, 5xx
        UnsupportedError                 40   the source cannot do what was asked
      IntegrityError                     50   the bytes are not the ones promised
        SizeMismatchError                51
        DigestMismatchError              52
        RemoteChangedError               53   another version appeared during the transfer
      CacheError                         60   this machine's storage said no
        DiskFullError                    61
        CachePermissionError             62
        CacheBusyError                   63
        CacheIncompleteError             64   asked to work from the cache alone, and files are missing
      BackendError                       70   a serving backend said no
        BackendMissingError              71
        IncompatibleModelError           72
        BackendExitedError               73

Exit code 2 is a usage error and 130 an interrupt; both come from the command line, not from here.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuthenticationError",
    "BackendError",
    "BackendExitedError",
    "BackendMissingError",
    "CacheBusyError",
    "CacheError",
    "CacheIncompleteError",
    "CachePermissionError",
    "ConfigError",
    "DigestMismatchError",
    "DiskFullError",
    "EntitlementError",
    "IncompatibleModelError",
    "IntegrityError",
    "InvalidUriError",
    "LicenseError",
    "ManifestError",
    "NimError",
    "NoPluginForSchemeError",
    "NotFoundError",
    "OverrideUnsupportedError",
    "PermissionDeniedError",
    "PluginConflictError",
    "PluginError",
    "PluginIncompatibleError",
    "PluginLoadError",
    "ProfileError",
    "RateLimitedError",
    "RegionBlockedError",
    "RemoteChangedError",
    "SizeMismatchError",
    "SourceError",
    "StalledError",
    "TransientError",
    "UnsupportedError",
]


class NimError(Exception):
    """
    Base of every error this project raises on purpose.

    Args:
        message: What happened, one line, starting in lower case, no full stop, never holding a secret.
        hint: What the user can do about it. None when there is nothing to advise.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(NimError):
    """A setting, flag or combination of them that cannot work."""

    exit_code = 10


class InvalidUriError(ConfigError):
    """A model URI that its scheme's grammar does not allow."""

    exit_code = 11


class ManifestError(ConfigError):
    """A manifest that cannot be read, or that asks for something unsafe."""

    exit_code = 12


class ProfileError(ConfigError):
    """No profile, or no single profile, matches what was asked for."""

    exit_code = 13


class OverrideUnsupportedError(ConfigError):
    """NIM_REPOSITORY_OVERRIDE names a target that cannot stand in for a repository."""

    exit_code = 14


class PluginError(NimError):
    """A plugin raised something other than these errors: its bug, named with its distribution and version."""

    exit_code = 20


class PluginLoadError(PluginError):
    """A plugin was found but could not be imported or registered."""

    exit_code = 21


class PluginConflictError(PluginError):
    """Two plugins claim one name or one scheme."""

    exit_code = 22


class PluginIncompatibleError(PluginError):
    """A plugin requires another version of nim-core."""

    exit_code = 23


class NoPluginForSchemeError(PluginError):
    """No installed plugin brings the scheme of a URI."""

    exit_code = 24


class SourceError(NimError):
    """
    The place a model lives refused or failed.

    Args:
        message: As for :class:`NimError`.
        hint: As for :class:`NimError`.
        uri: The URI being worked on, without secrets. None when the error is not about one.
        plugin: The plugin that met the error. Core fills it in; a plugin need not.
    """

    exit_code = 30

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        uri: str | None = None,
        plugin: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.uri = uri
        self.plugin = plugin


class NotFoundError(SourceError):
    """There is no such repository, revision or file (HTTP 404)."""

    exit_code = 31


class AuthenticationError(SourceError):
    """The endpoint does not know who is asking: missing, wrong or expired credential (HTTP 401)."""

    exit_code = 32


class PermissionDeniedError(SourceError):
    """The endpoint knows who is asking and says no: private or gated (HTTP 403)."""

    exit_code = 33


class EntitlementError(PermissionDeniedError):
    """No subscription of the asking account covers this model (HTTP 402)."""

    exit_code = 34


class RegionBlockedError(PermissionDeniedError):
    """The model may not be fetched from this region (HTTP 451)."""

    exit_code = 35


class LicenseError(SourceError):
    """The model's terms have to be accepted first (HTTP 412 at some sources)."""

    exit_code = 36


class RateLimitedError(SourceError):
    """
    The endpoint asks for fewer requests (HTTP 429).

    Args:
        message: As for :class:`NimError`.
        hint: As for :class:`NimError`.
        uri: As for :class:`SourceError`.
        plugin: As for :class:`SourceError`.
        retry_after: Seconds to wait as the endpoint gave them. None when it gave none.
    """

    exit_code = 37
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        uri: str | None = None,
        plugin: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, uri=uri, plugin=plugin)
        self.retry_after = retry_after


class StalledError(SourceError):
    """No bytes, or far too few, arrived for too long."""

    exit_code = 38
    retryable = True


class TransientError(SourceError):
    """A cut, a refused connection or a 5xx answer: trying again is reasonable."""

    exit_code = 39
    retryable = True


class UnsupportedError(SourceError):
    """The source cannot do what was asked of it."""

    exit_code = 40


class IntegrityError(NimError):
    """The bytes are not the ones that were promised."""

    exit_code = 50


class SizeMismatchError(IntegrityError):
    """A file has another length than its listing said."""

    exit_code = 51


class DigestMismatchError(IntegrityError):
    """A file has another digest than was promised, on fresh connections too."""

    exit_code = 52


class RemoteChangedError(IntegrityError):
    """The file was replaced at its source while it was being fetched."""

    exit_code = 53


class CacheError(NimError):
    """This machine's storage refused or failed."""

    exit_code = 60


class DiskFullError(CacheError):
    """Not enough bytes or inodes are left where they are needed."""

    exit_code = 61


class CachePermissionError(CacheError):
    """The cache, or a folder in it, cannot be written by this user."""

    exit_code = 62


class CacheBusyError(CacheError):
    """Another process owns what is needed and does not finish."""

    exit_code = 63


class CacheIncompleteError(CacheError):
    """Only the cache may be used, and files are missing from it."""

    exit_code = 64


class BackendError(NimError):
    """A serving backend refused or failed."""

    exit_code = 70


class BackendMissingError(BackendError):
    """No installed backend can serve this profile."""

    exit_code = 71


class IncompatibleModelError(BackendError):
    """The model does not fit this machine or this backend."""

    exit_code = 72


class BackendExitedError(BackendError):
    """The engine process ended by itself."""

    exit_code = 73
