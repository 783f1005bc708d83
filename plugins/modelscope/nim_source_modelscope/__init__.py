"""ModelScope as a source of models for nim-core."""
