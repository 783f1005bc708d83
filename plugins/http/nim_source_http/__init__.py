"""Files behind plain URLs: ``http://`` and ``https://``."""
