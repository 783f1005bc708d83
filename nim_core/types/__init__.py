"""
The values that cross the border between core and plugins.

Records are frozen and take keyword arguments only. None means "not known" or "not given"; there is no other default
that could be mistaken for a choice. Workers (:class:`Source`, :class:`Sink`, :class:`Backend`) are Protocols: a plugin
inherits from nothing. Their methods are called from several threads at once.
"""

from nim_core.types.arguments import Argument, ArgumentValue, Layer, Option, argument_words
from nim_core.types.backends import (
    Adapter,
    AdapterLoader,
    Backend,
    BackendSpec,
    EngineCall,
    Exposure,
    FrontDuties,
    LaunchPlan,
    LaunchRequest,
    Nodes,
    Verdict,
)
from nim_core.types.credentials import (
    Ambient,
    Anonymous,
    BasicPair,
    BearerToken,
    Credential,
    CredentialRequest,
    KeyPair,
)
from nim_core.types.environment import EnvVar, Variables
from nim_core.types.events import CheckResult, CheckSpec, TransferEvent
from nim_core.types.files import (
    DIGEST_HEX_LENGTHS,
    CacheKey,
    Digest,
    HttpObject,
    Listing,
    LocalObject,
    Location,
    RemoteFile,
    StreamObject,
    check_relative_path,
)
from nim_core.types.hardware import Gpu
from nim_core.types.secret import Secret
from nim_core.types.sinks import (
    Body,
    CopyingSink,
    HttpAnswer,
    HttpUpload,
    NewObject,
    Part,
    PartedSink,
    Sink,
    SinkContext,
    SinkSpec,
    StoredObject,
    StoredPart,
    Upload,
)
from nim_core.types.sources import (
    CachePlacement,
    Capabilities,
    FileNaming,
    Source,
    SourceContext,
    SourceSpec,
)
from nim_core.types.uris import ModelUri, OverrideTarget, UriStyle

__all__ = [
    "DIGEST_HEX_LENGTHS",
    "Adapter",
    "AdapterLoader",
    "Ambient",
    "Anonymous",
    "Argument",
    "ArgumentValue",
    "Backend",
    "BackendSpec",
    "BasicPair",
    "BearerToken",
    "Body",
    "CacheKey",
    "CachePlacement",
    "Capabilities",
    "CheckResult",
    "CheckSpec",
    "CopyingSink",
    "Credential",
    "CredentialRequest",
    "Digest",
    "EngineCall",
    "EnvVar",
    "Exposure",
    "FileNaming",
    "FrontDuties",
    "Gpu",
    "HttpAnswer",
    "HttpObject",
    "HttpUpload",
    "KeyPair",
    "LaunchPlan",
    "LaunchRequest",
    "Layer",
    "Listing",
    "LocalObject",
    "Location",
    "ModelUri",
    "NewObject",
    "Nodes",
    "Option",
    "OverrideTarget",
    "Part",
    "PartedSink",
    "RemoteFile",
    "Secret",
    "Sink",
    "SinkContext",
    "SinkSpec",
    "Source",
    "SourceContext",
    "SourceSpec",
    "StoredObject",
    "StoredPart",
    "StreamObject",
    "TransferEvent",
    "Upload",
    "UriStyle",
    "Variables",
    "Verdict",
    "argument_words",
    "check_relative_path",
]
