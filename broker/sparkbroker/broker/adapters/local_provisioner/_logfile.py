"""A driver's log: a file with a bound, in which an offset means the same byte for ever.

The driver and its shim write through one open file, so that cutting the file to nothing leaves their place in it: what
they write next lands where it would have, and what was cut is a hole that takes no space. Lines that are written
between the two steps of a cut may be lost.

The shim runs this file too: only the standard library's quickest modules here.
"""

import os

KEEP = 4 << 20
"""What is left of a log that is cut, in bytes: its newest."""


def bound(path: str, limit: int) -> bool:
    """Cut the log to its last part if it takes more than ``limit`` bytes on disk. Return whether it was cut."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_blocks * 512 <= limit:
            return False
        keep = min(KEEP, limit // 2)
        begin = max(0, status.st_size - keep)
        newest = os.pread(descriptor, keep, begin)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, newest, begin)
        return True
    finally:
        os.close(descriptor)


def read(path: str, offset: int, size: int) -> tuple[bytes, int]:
    """At most ``size`` bytes from ``offset`` on, and the offset after them. What was cut is skipped."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b"", offset
    try:
        end = os.fstat(descriptor).st_size
        if offset >= end:
            return b"", offset
        begin = _next_data(descriptor, offset, end)
        data = os.pread(descriptor, size, begin)
        if begin > offset:  # a hole ends at a block's border, the cut does not
            kept = data.lstrip(b"\0")
            begin += len(data) - len(kept)
            data = kept
        return data, begin + len(data)
    finally:
        os.close(descriptor)


def size(path: str) -> int:
    """Its length, holes included; 0 if there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - the shim does without pathlib
    except FileNotFoundError:
        return 0


def _next_data(descriptor: int, offset: int, end: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:  # nothing but a hole from here on
        return end


def tail_offset(path: str, lines: int, furthest: int) -> int:
    """Where the last ``lines`` lines begin, at most ``furthest`` bytes before the end."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        end = os.fstat(descriptor).st_size
        begin = max(0, end - furthest)
        whole = end > 0 and os.pread(descriptor, 1, end - 1) == b"\n"
        position, left = end, lines + whole
        while position > begin:
            step = min(65536, position - begin)
            block = os.pread(descriptor, step, position - step)
            count = block.count(b"\n")
            if count >= left:
                return position - step + _nth_newline_from_end(block, left) + 1
            left -= count
            position -= step
        return begin
    finally:
        os.close(descriptor)


def _nth_newline_from_end(block: bytes, count: int) -> int:
    position = len(block)
    for _ in range(count):
        position = block.rindex(b"\n", 0, position)
    return position


def find_ui(path: str) -> str:
    """Where Spark says that its UI is, as host:port; empty if it doesn't, near the beginning of its log."""
    data, _ = read(path, 0, 1 << 18)
    host = port = b""
    for line in data.splitlines():
        _, jetty, place = line.partition(b" Start Jetty ")
        if jetty and place.endswith(b" for SparkUI"):
            host = place.partition(b" ")[0].rpartition(b":")[0]
        _, started, rest = line.partition(b" Successfully started service 'SparkUI' on port ")
        if started:
            port = rest.strip(b". \r")
    return f"{host.decode(errors='replace')}:{port.decode(errors='replace')}" if host and port else ""
