"""Which TCP ports a process listens on, from /proc."""

import os
import re
from typing import Final

_LISTEN: Final = "0A"
_SOCKET: Final = re.compile(r"socket:\[(?P<inode>[0-9]+)\]")
_LOCAL_ADDRESSES: Final = frozenset(
    {
        "0100007F",  # 127.0.0.1
        "0000000000000000FFFF00000100007F",  # the same, mapped into IPv6, as Java has it
    }
)


def listening_on_loopback(pid: int) -> dict[int, int]:
    """Ports by socket inode, of all listeners on 127.0.0.1 in the process's network namespace."""
    result = {}
    for family in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{family}", encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError, PermissionError, OSError):
            continue
        for line in lines:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == _LISTEN and address in _LOCAL_ADDRESSES:
                result[int(fields[9])] = int(port, 16)
    return result


def sockets_of(pid: int) -> set[int]:
    """The inodes of the sockets that the process has open."""
    result = set()
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return result
    for descriptor in descriptors:
        try:
            match = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except OSError:
            continue
        if match is not None:
            result.add(int(match["inode"]))
    return result
