"""Models that are on this machine already: ``local:///absolute/path``."""
