"""Which TCP ports a process listens on.

The kernel is asked for its listeners over netlink (``sock_diag``, microseconds); where that is forbidden, /proc/net/tcp
tells the same and takes 10 ms, as it walks all connections.
"""

# A hot path over hundreds of descriptors.
# ruff: noqa: PTH115, PTH123, PTH208

import os
import re
import socket
import struct
from collections.abc import Iterator
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST_AND_DUMP: Final = 0x301
_TCP_LISTEN: Final = 10
_MESSAGE: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBBI48s")
_ANSWER: Final = struct.Struct("=4s2s2s16s16s4s8s16sI")  # family …, ports, addresses, …, uid, inode
_RECEIVE: Final = 1 << 16
_TIMEOUT: Final = 1.0

_LOOPBACK: Final = socket.inet_aton("127.0.0.1")
_LOOPBACK_IN_6: Final = bytes(10) + b"\xff\xff" + _LOOPBACK  # as Java has it
_SOCKET: Final = re.compile(r"socket:\[(?P<inode>[0-9]+)\]")


def listening_on_loopback() -> dict[int, int]:
    """Ports by socket inode, of all listeners on 127.0.0.1 in our network namespace."""
    try:
        return dict(_ask(socket.AF_INET, _LOOPBACK)) | dict(_ask(socket.AF_INET6, _LOOPBACK_IN_6))
    except OSError:
        return dict(_read("tcp", "0100007F")) | dict(_read("tcp6", "0000000000000000FFFF00000100007F"))


def _ask(family: int, address: bytes) -> Iterator[tuple[int, int]]:
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN, bytes(48))
    size = _MESSAGE.size + len(request)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_TIMEOUT)
        netlink.send(_MESSAGE.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 1, 0) + request)
        while True:
            data = netlink.recv(_RECEIVE)
            while data:
                size, kind, *_ = _MESSAGE.unpack_from(data)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise OSError("the kernel tells no listeners")
                _, source_port, _, source, _, _, _, _, inode = _ANSWER.unpack_from(data, _MESSAGE.size)
                if source[: len(address)] == address:
                    yield inode, int.from_bytes(source_port, "big")
                data = data[(size + 3) & ~3 :]


def _read(table: str, address: str) -> Iterator[tuple[int, int]]:
    try:
        with open(f"/proc/self/net/{table}", encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:  # no IPv6
        return
    for line in lines:
        fields = line.split()
        own, port = fields[1].split(":")
        if fields[3] == "0A" and own == address:
            yield int(fields[9]), int(port, 16)


def sockets_of(pid: int) -> set[int]:
    """The inodes of the sockets that the process has open."""
    result: set[int] = set()
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
