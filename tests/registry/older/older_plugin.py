"""
A plugin as somebody wrote it for version 1.0 of the contract, and never touched again.

Pinned: it must load and work with every 1.x, so it is not changed along with the contract. It gives records only what
they cannot do without, and its hooks take fewer arguments than they are offered.
"""

from nim_core.hookspecs import hookimpl
from nim_core.types import (
    BackendSpec,
    BearerToken,
    CheckResult,
    CheckSpec,
    EnvVar,
    HttpObject,
    LaunchPlan,
    Listing,
    RemoteFile,
    SinkSpec,
    SourceSpec,
    UriStyle,
    Verdict,
)

heard = []


class OlderSource:
    def __init__(self, context):
        self._url = context.variables.text("OLDER_URL")

    def list_files(self, uri):
        return Listing(uri=uri, files=(RemoteFile(path="config.json"),))

    def locate(self, uri, file):
        return HttpObject(url=f"{self._url}/{uri.location}/{file.path}")

    def close(self):
        pass


class OlderSink:
    def head(self, key):
        return None

    def list_objects(self, prefix):
        return ()

    def put(self, new, body):
        pass

    def close(self):
        pass


class OlderBackend:
    def options(self):
        return ()

    def propose(self, request):
        return ()

    def probe(self, request):
        return Verdict(can_serve=True)

    def plan_launch(self, request):
        return LaunchPlan(argv=("older-engine",))


@hookimpl
def nim_register_sources():
    variables = (EnvVar(name="OLDER_URL", summary="address", default="https://older.example.com"),)
    return [
        SourceSpec(
            name="older",
            schemes=("older",),
            uri_style=UriStyle.REPOSITORY,
            summary="an older store",
            factory=OlderSource,
            environment=variables,
        )
    ]


@hookimpl
def nim_register_sinks():
    return [SinkSpec(name="older", scheme="older", summary="an older store", factory=lambda context: OlderSink())]


@hookimpl
def nim_register_backends():
    return [BackendSpec(name="older", summary="an older engine", factory=lambda variables: OlderBackend())]


@hookimpl
def nim_register_checks():
    return [CheckSpec(name="older", summary="older check", run=lambda _: CheckResult(status="ok", message="fine"))]


@hookimpl
def nim_register_environment():
    return [EnvVar(name="OLDER_MORE", summary="more")]


@hookimpl
def nim_provide_credential():
    return BearerToken(token="older-token", origin="older")


@hookimpl
def nim_rewrite_uri(uri):
    return uri


@hookimpl
def nim_transfer_event():
    heard.append("told")
