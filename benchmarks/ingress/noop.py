"""Starlette on uvicorn as lean as the ingress; reads the body and answers: the upper bound."""

import sys

import uvloop
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingress.answers import Answer, respond
from ingress.server import serve

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


if __name__ == "__main__":
    app = Starlette(routes=[Route("/api/v1/in/{domain}", Nothing())])
    uvloop.run(serve(app, sys.argv[1]))
