"""Models in OCI registries: ``oci://``."""
