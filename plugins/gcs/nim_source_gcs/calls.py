"""The requests of a sink, signed, and their answers in one form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nim_core.types import Body, HttpAnswer, HttpUpload, Secret
from nim_source_gcs.client import Client, Pass

if TYPE_CHECKING:
    import httpx


class Calls:
    """
    Requests to the endpoint of a client, about one bucket.

    Args:
        client: Signs them.
        bucket: Name.
        carry: Carries those out whose body is an object's; as ``SinkContext.send``.
    """

    def __init__(self, client: Client, bucket: str, carry: Callable[[HttpUpload], HttpAnswer]) -> None:
        self._client = client
        self._bucket = bucket
        self._carry = carry

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        *,
        repeatable: bool = True,
    ) -> HttpAnswer:
        """
        Send a request with a small body or none.

        Args:
            method: In capitals.
            target: Path and query, sent as they are.
            headers: Beside core's own and those that sign it.
            content: The body.
            repeatable: Whether it does no harm when core sends it again.
        """
        url = self._client.url + target
        response: httpx.Response = self._client.request(
            self._bucket, method, url, content=content, headers=headers, repeatable=repeatable
        )
        told = {name.lower(): value for name, value in response.headers.items()}
        return HttpAnswer(status=response.status_code, headers=told, body=response.content)

    def send(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> HttpAnswer:
        """Send a request with bytes of an object; arguments as :meth:`ask`."""

        def carried(granted: Pass) -> HttpAnswer:
            signed: Mapping[str, str | Secret] = {**headers, **granted.headers}
            return self._carry(HttpUpload(url=self._client.url + target, method=method, headers=signed, body=body))

        return self._client.signer.signed(self._bucket, carried, lambda answer: answer.status)
