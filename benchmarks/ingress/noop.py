"""Starlette on uvicorn, as lean as measured.md §3 found it fastest; it reads and answers."""

import socket
import sys

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingress.answers import Answer, respond

_RECEIPT = Answer(
    200,
    '{"id": "019abcde-0000-7000-8000-000000000000", "stored": "kafka"}',
    content_type=b"application/json",
)


class Nothing:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await respond(send, _RECEIPT)


def _listening(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, int(port)))
    return listener


if __name__ == "__main__":
    config = uvicorn.Config(
        Starlette(routes=[Route("/api/v1/in/{domain}", Nothing(), methods=["POST"])]),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=2048,
    )
    uvloop.run(uvicorn.Server(config).serve([_listening(sys.argv[1])]))
