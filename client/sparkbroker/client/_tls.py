"""Why a broker's certificate isn't trusted: gRPC says so only sometimes, and never says that trying again is of no use."""

import asyncio
import os
import ssl
from pathlib import Path
from typing import Final

import grpc

from sparkbroker.client._address import Address

TIMEOUT: Final = 3.0
_ROOTS: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
_GRPCS_OWN: Final = Path(grpc.__file__).parent / "_cython" / "_credentials" / "roots.pem"


async def distrusted(address: Address) -> str:
    """Shake hands with a broker that gRPC can't reach. What is wrong with its certificate; empty: nothing, or no answer."""
    host, _, port = address.target.rpartition(":")
    try:
        context = _context(address)
    except (ssl.SSLError, ValueError):
        return f"the CA file {str(address.ca_file)!r} holds no certificate in PEM"
    except OSError:
        return ""  # whom gRPC trusts isn't known
    host = host.strip("[]")
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate isn't trusted ({error.verify_message})"
    except (OSError, TimeoutError):
        return ""
    writer.close()
    return ""


def _context(address: Address) -> ssl.SSLContext:
    """That trusts whom gRPC trusts: without a CA file those are its own, and not the system's, which may be fewer."""
    trusted = address.read_ca()
    if trusted is None:
        context = ssl.create_default_context(cafile=os.environ.get(_ROOTS) or _GRPCS_OWN)
    else:
        context = ssl.create_default_context(cadata=trusted.decode("ascii", "replace"))
    context.set_alpn_protocols(["h2"])
    return context
