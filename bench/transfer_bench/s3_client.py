"""
What needs boto3; run by the Python that has it. NAMES is a file with the names of the files, one a line.

    python s3_client.py fill ENDPOINT BUCKET FOLDER NAMES          uploads, prints presigned URLs as JSON
    python s3_client.py classic|crt ENDPOINT BUCKET FOLDER NAMES   downloads
"""

from __future__ import annotations

import concurrent.futures
import json
import sys
from pathlib import Path
from typing import Any

AT_ONCE = 8
SIGNED_SECONDS = 86400


def main() -> None:
    """Do what the command line says."""
    what, endpoint, bucket, folder, listed = sys.argv[1:]
    names = Path(listed).read_text(encoding="utf-8").splitlines()
    if what == "fill":
        print(json.dumps(fill(client(endpoint), bucket, Path(folder), names)))
    else:
        download(what, endpoint, bucket, Path(folder), names)


def client(endpoint: str | None) -> Any:
    """Return an S3 client that signs as the store expects, in path style."""
    import boto3
    from botocore.config import Config

    config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, max_pool_connections=2 * AT_ONCE)
    return boto3.client("s3", endpoint_url=endpoint, config=config)


def fill(s3: Any, bucket: str, folder: Path, names: list[str]) -> dict[str, str]:
    """Upload files and return presigned URLs by name."""
    s3.create_bucket(Bucket=bucket)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: s3.upload_file(str(folder / name), bucket, name), names))
    return {name: presigned(s3, bucket, name) for name in names}


def presigned(s3: Any, bucket: str, name: str) -> str:
    """Return an address that reads one file without further credentials."""
    wanted = {"Bucket": bucket, "Key": name}
    return str(s3.generate_presigned_url("get_object", Params=wanted, ExpiresIn=SIGNED_SECONDS))


def download(how: str, endpoint: str, bucket: str, folder: Path, names: list[str]) -> None:
    """Download files; with the CRT the endpoint comes from AWS_ENDPOINT_URL, as it ignores the argument."""
    from boto3.s3.transfer import TransferConfig

    s3 = client(None if how == "crt" else endpoint)
    config = TransferConfig(preferred_transfer_client=how, max_concurrency=AT_ONCE)
    with concurrent.futures.ThreadPoolExecutor(1 if how == "crt" else AT_ONCE) as pool:
        list(pool.map(lambda name: s3.download_file(bucket, name, str(folder / name), Config=config), names))


if __name__ == "__main__":
    main()
