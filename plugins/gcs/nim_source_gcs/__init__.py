"""Google Cloud Storage as a source of models for nim-core: ``gs://``."""
