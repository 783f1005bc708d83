pytest_plugins = ["nim_core.testing"]
