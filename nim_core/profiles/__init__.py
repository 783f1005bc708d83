"""
Profiles: what they are called, what they need, what there is to run them on, and which is best.

``names``, ``model``, ``estimate``, ``selection`` and ``generate`` (the manifest of a model that has none) are pure;
``nvml`` and ``hardware`` say which GPUs there are, ``facts`` what the cache knows about models, and ``judging`` puts
them together.
"""
