"""The coordinator's HTTP towards workers, over one of httpx's transports for tests."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from app.services.workers.connection import ClosedError, ConnectError, Reply, retry_after


class HttpxHttp:
    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.client = httpx.AsyncClient(transport=transport)

    async def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        try:
            answer = await self.client.request(method, url, headers=headers, content=body)
        except httpx.ConnectError as error:
            raise ConnectError from error
        except httpx.TransportError as error:
            raise ClosedError from error
        return Reply(answer.status_code, answer.content, retry_after(answer.headers.get("Retry-After")))

    async def aclose(self) -> None:
        await self.client.aclose()
