"""
The kit: what a plugin's tests need, and what the project's own tests are made of.

``pytest_plugins = ["nim_core.testing"]`` in a test module or a root ``conftest.py`` brings the fixtures ``corpus``,
``certificates``, ``ngc_server``, ``hub_server``, ``modelscope_server``, ``google_auth``, ``gcs_server`` and
``gcs_emulator``. Everything else is imported from the module that has it:

=====================  ==========================================================================
``corpus``             a small model as a value, made anew for every run from nothing but a seed
``manifests``          manifest text for it
``tiny_model``         a language model that really answers, half a megabyte, as safetensors and as GGUF
``certificates``       a private CA and a server certificate
``http_server``        requests and answers as values, an origin that serves them, the log
``ranged``             answers to ranged and conditional requests
``faults``             ways to misbehave, and when
``signed_storage``     an object store behind presigned URLs
``harness``            a context to make a source with, and URIs
``ngc_models``         models as the stand-in for NGC serves them, and its refusals
``s3_server``          a real S3 server that checks signatures
``squid``              a real forward proxy
``nginx``              a real web server
``ngc_server``         the stand-in itself, also ``python -m nim_core.testing.ngc_server``
``modelscope_models``  models as the stand-in for ModelScope serves them, and its refusals
``modelscope_server``  the stand-in itself
``google_auth``        Google's token services and metadata server
``gcs_server``         Google Cloud Storage, two real servers behind a check of tokens
``hub_models``         models as the stand-in for the Hugging Face Hub serves them, and its refusals
``hub_server``         the stand-in itself, also ``python -m nim_core.testing.hub_server``
=====================  ==========================================================================

Importing this package imports neither pytest nor any of these. PYTEST_DONT_REWRITE
"""

pytest_plugins = ("nim_core.testing.plugin", "nim_core.testing.conformance.matrix")
