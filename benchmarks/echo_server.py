"""The peer of the throughput benchmark: a bare grpc.aio server that gives back the bytes that it gets.

    python echo_server.py [asyncio | uvloop]

Prints its port, and serves until its standard input ends or it gets a SIGTERM.
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

METHOD = "/bench.Echo/Echo"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
    with asyncio.Runner(loop_factory=LOOPS[sys.argv[1] if len(sys.argv) > 1 else "asyncio"]) as runner:
        runner.run(main())
