"""A broker of our own for one ``run``: a child process that lives and dies with us.

It holds the read end of a pipe whose only writer is this process. However we end, ``kill -9`` included, the kernel
closes the pipe; the broker sees that, ends its drivers, removes its folder and exits. Its drivers' shims hold such
pipes to the broker in turn.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

from sparkbroker.broker.cli.exit_codes import FAILED, Exit

START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 30.0
_RETRY: Final = 0.05
_LONGEST_SOCKET_PATH: Final = 107
_LOG_LINES: Final = 20


class EmbeddedBroker:
    """An async context manager: the broker serves inside of it, and is gone, with its drivers, after it."""

    def __init__(self, config: Path | None) -> None:
        self._config = config
        self._folder = Path(tempfile.mkdtemp(prefix="sparkbroker-", dir=_short_temporary_folder()))
        self._temporary = self._folder / "tmp"
        self._temporary.mkdir(mode=0o700)
        self._pid = 0
        self._writer = -1
        # The broker removes its folder when it ends; what we hold open we can still read.
        self._log = (self._folder / "broker.log").open("w+b")
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<EmbeddedBroker {self._pid} in {self._folder}>"

    @property
    def socket(self) -> Path:
        return self._folder / "run" / "broker.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    async def __aenter__(self) -> Self:
        try:
            self._spawn()
            await self._serving()
        except BaseException:
            await asyncio.shield(self._stop())
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self._stop())

    def _spawn(self) -> None:
        reader, self._writer = os.pipe2(os.O_CLOEXEC)
        try:
            # The child's end gets a number that nothing else in the child has.
            number = os.dup(reader)
            os.set_inheritable(number, True)
            try:
                self._pid = self._spawn_with(number)
            finally:
                os.close(number)
        finally:
            os.close(reader)
        descriptor = os.pidfd_open(self._pid)
        asyncio.get_running_loop().add_reader(descriptor, self._has_ended, descriptor)

    def _spawn_with(self, parent_fd: int) -> int:
        # -P: a module of the user's in the working directory must not stand in for one of ours.
        command = [sys.executable, "-P", "-m", "sparkbroker.broker", "serve", "--embedded"]
        command += ["--state-folder", str(self._folder), "--parent-fd", str(parent_fd)]
        if self._config is not None:
            command += ["--config", str(self._config.absolute())]
        return os.posix_spawn(
            sys.executable,
            command,
            # What it or its drivers put into the temporary folder goes with its folder.
            dict(os.environ) | {"TMPDIR": str(self._temporary)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, self._log.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, self._log.fileno(), 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),
        )

    def _has_ended(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        os.waitpid(self._pid, 0)
        self._ended.set()

    async def _serving(self) -> None:
        """Wait until its socket answers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT):
                while not self._ended.is_set():
                    if answers(self.socket):
                        return
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._ended.wait(), _RETRY)
        how = "ended" if self._ended.is_set() else f"did not answer within {START_TIMEOUT:g}s"
        raise Exit(FAILED, f"the embedded broker {how}:\n{self.last_words()}")

    def last_words(self) -> str:
        """The last lines of its log, indented."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (it said nothing)"

    async def _stop(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
        if self._pid:
            for number in (None, signal.SIGTERM, signal.SIGKILL):
                if number is not None:
                    os.kill(self._pid, number)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), STOP_TIMEOUT)
                    break
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def answers(path: Path) -> bool:
    """Whether something accepts connections on this unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _short_temporary_folder() -> str:
    """The temporary folder, unless a socket's path below it would be too long."""
    folder = tempfile.gettempdir()
    deepest = f"{folder}/sparkbroker-12345678/run/broker.sock"
    return folder if len(os.fsencode(deepest)) <= _LONGEST_SOCKET_PATH else "/tmp"  # noqa: S108 (mkdtemp makes it 0700)
