"""Credentials from mounted files, such as Kubernetes Secrets."""
