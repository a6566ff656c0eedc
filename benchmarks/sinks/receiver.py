"""A target of `http` that takes all. `GET /` tells the bodies, one a line. Argument: a port."""

import sys

from aiohttp import web


def main(port: int) -> None:
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    async def tell(_request: web.Request) -> web.Response:
        return web.Response(body=b"\n".join(bodies))

    app = web.Application()
    app.router.add_post("/", take)
    app.router.add_get("/", tell)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
