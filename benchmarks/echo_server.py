"""The peer of the throughput benchmark: a bare grpc.aio server that gives back the bytes that it gets.

Prints its port, and serves until its standard input ends.
"""

import asyncio
import sys
from typing import Any

import grpc

METHOD = "/bench.Echo/Echo"


async def echo(request: bytes, _context: Any) -> bytes:
    return request


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(1)


if __name__ == "__main__":
    asyncio.run(main())
