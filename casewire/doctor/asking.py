"""Asks a broker what aiokafka's admin client has no method for."""

from typing import Any


async def ask(client: Any, request: Any, node: int | None = None) -> Any:
    """Return the answer of a broker to a request of `aiokafka.protocol`. Raises KafkaError."""
    return await client._send_request(request, node)  # noqa: SLF001 - aiokafka is pinned
