"""What only the author of a source can give: a model that is there, and how to get at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from nim_core.testing.corpus import Content

__all__ = ["Served"]


@frozen(kw_only=True)
class Served:
    """
    A model at a server, or a folder, that the source of a plugin can read.

    The server speaks plain HTTP, as the relay has to see into what is asked of it.

    Attributes:
        uri: The model.
        files: What it consists of, by path. None: not known, as at a real service; nothing is compared then.
        environment: Variables with which it can be read: addresses, and what signs in.
        endpoints: URLs of whoever may get what signs in. None: the values of ``environment`` that are URLs.
        token_services: URLs of services that trade what signs in for tokens and do nothing else; of ``endpoints`` too.
        secrets: What must never be seen, beside the values of variables that the plugin declares secret: such as a key
            in a file that a variable names.
        missing: A URI of the same kind where nothing is. None: not known.
        expire: Makes every URL that was handed out until now refuse. None: they do not expire.
        change: Puts other content at the same URI, so that a new listing has another revision. None: cannot be done.
    """

    uri: str
    files: Mapping[str, Content] | None = None
    environment: Mapping[str, str] = field(factory=dict)
    endpoints: tuple[str, ...] | None = None
    token_services: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    missing: str | None = None
    expire: Callable[[], object] | None = None
    change: Callable[[], object] | None = None

    @property
    def allowed(self) -> tuple[str, ...]:
        """URLs of whoever may get what signs in."""
        if self.endpoints is not None:
            return self.endpoints
        return tuple(value for value in self.environment.values() if value.startswith(("http://", "https://")))

    @property
    def known_as(self) -> str:
        """What stays the same when the same model is served anew, at another address."""
        return repr(None if self.files is None else sorted(self.files))
