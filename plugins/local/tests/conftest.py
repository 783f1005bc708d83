"""The kit's fixtures."""

pytest_plugins = ["nim_core.testing"]
