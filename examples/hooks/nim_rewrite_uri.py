"""``NIM_REPOSITORY_OVERRIDE=acme://mirror``: files come from Acme's store, where each has one flat name."""

from nim_core import hookimpl
from nim_core.errors import OverrideUnsupportedError
from nim_core.types import ModelUri, OverrideTarget, UriStyle


@hookimpl(trylast=True)
def nim_rewrite_uri(uri: ModelUri, override: OverrideTarget) -> ModelUri | None:
    if override.scheme != "acme":
        return None  # somebody else's target
    if uri.file is None and uri.style is not UriStyle.OBJECT:
        raise OverrideUnsupportedError("a mirror at Acme cannot list models", hint="name the files by a manifest")
    return ModelUri(scheme="acme", location=f"{override.location}/{override.key}", style=UriStyle.OBJECT)
