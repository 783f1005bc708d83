"""
List and download a model with NVIDIA's own client; run by ``test_ngc_oracle.py`` in an environment that has it.

Arguments: target, organisation, key (empty: as a guest), destination, patterns of files to pick (none: all). Prints one
JSON object on the last line.
"""

import json
import sys

from ngcsdk import Client


def main(target: str, org: str, key: str, destination: str, *patterns: str) -> None:
    client = Client()
    if key:
        client.configure(api_key=key, org_name=org)
    listed = {file.path: file.sizeInBytes for file in client.registry.model.list_files(target)}
    result = client.registry.model.download_version(
        target, destination=destination, file_patterns=list(patterns) or None
    )
    found = {"listed": listed, "status": result.status, "path": result.path, "bytes": result.completed_bytes}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
