"""The suite for sources."""

from __future__ import annotations

from nim_core.testing.conformance.faulty import FaultTests
from nim_core.testing.conformance.reading import ReadingTests
from nim_core.testing.conformance.refusals import RefusalTests
from nim_core.testing.conformance.secrecy import SecrecyTests

__all__ = ["SourceSuite"]


class SourceSuite(ReadingTests, RefusalTests, SecrecyTests, FaultTests):
    """Everything that a source owes; the author's class gives ``plugin`` and the fixture ``served``."""
