"""Which hosts are this machine itself."""

import socket
from typing import Final

ADDRESS: Final = "127.0.0.1"
"""What ``localhost`` means to us wherever a secret is sent."""
NAMES: Final = (ADDRESS, "::1", "localhost")
"""As people write them."""
_V4_IN_V6: Final = bytes(10) + b"\xff\xff"


def is_loopback_address(host: str) -> bool:
    """Whether it is a number that means this machine, whatever names say: 127.0.0.0/8 or ::1."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, host)
        except (OSError, ValueError):  # ValueError: a NUL in it
            continue
        if family == socket.AF_INET6 and packed.startswith(_V4_IN_V6):
            packed = packed[len(_V4_IN_V6) :]
        return packed[0] == 127 if len(packed) == 4 else packed == bytes(15) + b"\x01"
    return False


def is_loopback_name(host: str) -> bool:
    """Whether it is a name that RFC 6761 keeps for this machine: ``localhost`` and all below it."""
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Whether it is such an address or such a name. Other names are not looked up."""
    return is_loopback_address(host) or is_loopback_name(host)
