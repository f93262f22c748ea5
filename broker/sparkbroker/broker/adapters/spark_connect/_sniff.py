"""Which of a process's ports is its gRPC server's, found without telling it anything.

An HTTP/2 server speaks first: a SETTINGS frame, as soon as it has accepted. Spark's own RPC and block ports, and its UI,
wait for the caller. So the token goes only to the port that is meant, and the others log nothing.
"""

import asyncio
from typing import Final

_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4


async def speaks_http2(host: str, port: int, timeout: float) -> bool:
    """Whether the listener there greets with an HTTP/2 SETTINGS frame within the time."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                header = await reader.readexactly(_FRAME_HEADER)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return header[3] == _SETTINGS
