"""A pod's log, of Spark's own container: read from its node while it exists (see ``_following`` for who reads on), and from a saved
end afterwards.

An offset counts the bytes from the beginning of what the node has, and means the same byte in both: the saved file says where it
begins. A node that rotates the log (at 10 MiB by default) shows the new file alone, so that offsets begin anew with it. The
driver's token is starred out.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import structlog

from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.domain.lease.log_tail import log_tail
from sparkbroker.broker.domain.pods.settings import DRIVER_CONTAINER, EXECUTOR_CONTAINER

log = structlog.get_logger()

CHUNK: Final = 64 * 1024
KEEP: Final = 1 << 20
"""What is saved of a log before its pod is deleted, in bytes: its end."""
SAVE_TIMEOUT: Final = 5.0
SAVE_TRIES: Final = 3
SAVE_PAUSE: Final = 0.25
"""Seconds between two of them."""
LONGEST_TAIL: Final = 16 << 20
QUIET: Final = 3.0
"""Seconds without a byte after which a node that is followed has told what there was."""
RECENT: Final = 256 << 10
"""Bytes of a log that are looked through for what it says now."""
_HEADER: Final = b"%019d\n"
_HEADER_SIZE: Final = 20


class Redactor:
    """Stars out a secret in a stream, also where it crosses the borders of what comes in."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be told so far: all but a beginning of the secret at the end."""
        data = (self._held + data).replace(self._secret, b"*" * len(self._secret))
        held = next((n for n in range(len(self._secret) - 1, 0, -1) if data.endswith(self._secret[:n])), 0)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def flush(self) -> bytes:
        """The rest, at the end."""
        rest, self._held = self._held, b""
        return rest


class Tail:
    """The end of a stream: at most ``keep`` bytes, and how many came before them."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._data = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        self._data += data
        self.total += len(data)
        if len(self._data) > 2 * self._keep:
            del self._data[: -self._keep]

    @property
    def data(self) -> bytes:
        return bytes(self._data[-self._keep :])

    def lines(self, count: int) -> bytes:
        """Its last lines, whole as far as they are kept."""
        return b"".join(self.data.splitlines(keepends=True)[-count:])


async def stream(
    cluster: Cluster, pod: Pod, token: str, *, follow: bool, seconds: int | None = None, for_people: bool = False
) -> AsyncGenerator[bytes, None]:
    """A log from its beginning, or of the last seconds; redacted. With ``follow`` an empty piece after each QUIET seconds in
    which nothing came. Raise ApiFailed."""
    redactor = Redactor(token)
    where, container = pod.metadata, DRIVER_CONTAINER if pod.is_driver else EXECUTOR_CONTAINER
    async with cluster.log(
        where.namespace, where.name, container, follow=follow, seconds=seconds, for_people=for_people
    ) as reader:
        while (data := await _read(reader, QUIET if follow else None)) != b"":
            if data is None:
                yield b""
            elif told := redactor.feed(data):
                yield told
        if rest := redactor.flush():
            yield rest


async def _read(reader: Any, patience: float | None) -> bytes | None:
    """What comes next; empty: nothing any more; None: nothing within so many seconds."""
    try:
        async with asyncio.timeout(patience) as bound:
            data: bytes = await reader.read(CHUNK)
    except TimeoutError:
        if bound.expired():
            return None
        raise  # the connection's own
    return data


async def measure(cluster: Cluster, pod: Pod, token: str, keep: int, *, for_people: bool = False) -> Tail:
    """The end of a driver's log as it is now. Raise ApiFailed."""
    tail = Tail(keep)
    async for data in stream(cluster, pod, token, follow=False, for_people=for_people):
        tail.feed(data)
    return tail


async def recent(cluster: Cluster, pod: Pod, token: str, seconds: int) -> list[str]:
    """What a driver has written in the last seconds, by lines: the end of it. Raise ApiFailed."""
    tail = Tail(RECENT)
    async for data in stream(cluster, pod, token, follow=False, seconds=seconds):
        tail.feed(data)
    return tail.data.decode(errors="replace").splitlines()


async def save(cluster: Cluster, pod: Pod, token: str, path: Path, keep: int = KEEP) -> tuple[str, ...]:
    """Keep the end of a log, ``keep`` bytes of it, as far as that can be had in a few seconds, in which what fails is tried again: an
    end that can't be told delays no release. Return its last lines."""
    try:
        async with asyncio.timeout(SAVE_TIMEOUT):
            tail = await _measured(cluster, pod, token, keep)
        await asyncio.to_thread(write_saved, path, tail)
        return await asyncio.to_thread(last_lines, path)
    except (ApiFailed, OSError, TimeoutError) as error:
        tell = log.warning if pod.is_driver else log.info
        tell("driver.log_not_saved", pod=pod.metadata.name, message=str(error) or "took too long")
        return ()


async def _measured(cluster: Cluster, pod: Pod, token: str, keep: int) -> Tail:
    """Tried again where no answer came, or a server is busy or in trouble."""
    for _ in range(SAVE_TRIES - 1):
        try:
            return await measure(cluster, pod, token, keep)
        except ApiFailed as error:
            if 0 < error.code < HTTPStatus.TOO_MANY_REQUESTS:
                raise
        await asyncio.sleep(SAVE_PAUSE)
    return await measure(cluster, pod, token, keep)


def write_saved(path: Path, tail: Tail) -> None:
    """Keep the end of a log, and where it began. A longer one that is kept already stays."""
    known, data = _saved(path)
    if known + len(data) >= tail.total:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = tail.data
    new = path.with_suffix(".new")
    new.write_bytes(_HEADER % (tail.total - len(kept)) + kept)
    new.replace(path)


def _saved(path: Path) -> tuple[int, bytes]:
    """Where what was saved began, and what it is; nothing if nothing was."""
    try:
        content = path.read_bytes()
        return int(content[:_HEADER_SIZE]), content[_HEADER_SIZE:]
    except FileNotFoundError:
        return 0, b""


def last_lines(path: Path) -> tuple[str, ...]:
    """The last lines that were saved and the cause that they lead back to, for a driver's exit."""
    _, data = _saved(path)
    return log_tail(data[-CHUNK:].decode(errors="replace"))


async def read_saved(path: Path, offset: int, tail_lines: int) -> AsyncIterator[tuple[bytes, int]]:
    """What was saved, from an offset or a number of lines before its end, with the offset after each piece."""
    begin, data = await asyncio.to_thread(_saved, path)
    if tail_lines:
        offset = begin + len(data) - len(b"".join(data.splitlines(keepends=True)[-tail_lines:]))
    position = max(0, offset - begin)
    while position < len(data):
        piece = data[position : position + CHUNK]
        position += len(piece)
        yield piece, begin + position
