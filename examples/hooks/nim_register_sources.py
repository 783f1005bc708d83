"""Models of a store of one's own: ``acme://team/model:1``."""

from nim_core import hookimpl
from nim_core.types import Capabilities, EnvVar, Source, SourceContext, SourceSpec, UriStyle

ENVIRONMENT = (
    EnvVar(name="ACME_URL", summary="address of the store", kind="url"),
    EnvVar(name="ACME_TOKEN", summary="token that signs in to the store", secret=True),
)


def make_source(context: SourceContext) -> Source:
    from acme_models.source import AcmeSource  # now that one is needed, and not whenever nim-core starts

    return AcmeSource(context)


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    return [
        SourceSpec(
            name="acme",
            schemes=("acme",),
            uri_style=UriStyle.REPOSITORY,
            summary="models of Acme's store",
            factory=make_source,
            capabilities=Capabilities(pins_revisions=True),
            environment=ENVIRONMENT,
        )
    ]
