"""Moving bytes: control requests through httpx, the files themselves through libcurl, one set of network rules."""
