"""Who is asking, and the answers a plugin can give."""

from __future__ import annotations

from attrs import converters, field, frozen

from nim_core.types.environment import Variables
from nim_core.types.secret import Secret, as_secret
from nim_core.types.uris import ModelUri


@frozen(kw_only=True)
class BearerToken:
    """A token or key sent as ``Authorization: Bearer`` or traded for one. ``origin`` names where it came from."""

    token: Secret = field(converter=as_secret)
    origin: str
    expires_at: float | None = None


@frozen(kw_only=True)
class BasicPair:
    """User and password."""

    username: str
    password: Secret = field(converter=as_secret)
    origin: str
    expires_at: float | None = None


@frozen(kw_only=True)
class KeyPair:
    """An access key with its secret and, when temporary, its session token."""

    access_key: str
    secret_key: Secret = field(converter=as_secret)
    session_token: Secret | None = field(default=None, converter=converters.optional(as_secret))
    origin: str
    expires_at: float | None = None


@frozen(kw_only=True)
class Ambient:
    """The vendor's own library finds the credential (instance role, default credentials); core never sees it."""

    origin: str
    expires_at: float | None = None


@frozen(kw_only=True)
class Anonymous:
    """No credential, on purpose."""

    origin: str = "anonymous"
    expires_at: float | None = None


Credential = BearerToken | BasicPair | KeyPair | Ambient | Anonymous


@frozen(kw_only=True)
class CredentialRequest:
    """
    Who is asking for a credential, and for what.

    Attributes:
        source: Name of the source, sink or backend that will use it.
        endpoint: Scheme, host and port (and path prefix) it will be sent to, such as ``https://api.example.com``.
        uri: The model it is for. None for requests about none in particular.
        variables: Values of the variables all installed plugins declare.
    """

    source: str
    endpoint: str
    uri: ModelUri | None = None
    variables: Variables
