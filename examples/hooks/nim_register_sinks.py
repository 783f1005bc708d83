"""A store to mirror into: ``nim-llm mirror depot --bucket NAME``."""

from nim_core import hookimpl
from nim_core.types import EnvVar, Sink, SinkContext, SinkSpec


def make_sink(context: SinkContext) -> Sink:
    from acme_depot.sink import DepotSink

    return DepotSink(context)


@hookimpl
def nim_register_sinks() -> list[SinkSpec]:
    return [
        SinkSpec(
            name="depot",
            scheme="depot",
            summary="buckets of Acme's depot",
            factory=make_sink,
            environment=(EnvVar(name="DEPOT_URL", summary="address of the depot", kind="url"),),
        )
    ]
