"""The watcher of ``run``: see ``_watcher``, which is its process."""

import os
import signal
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sparkbroker.broker.cli import _watcher
from sparkbroker.broker.cli.child import KILL_GRACE

_PROGRAM: Final = str(Path(_watcher.__file__).absolute())


class Watcher:
    """A context manager: if this process is killed inside of it, the command ends and ``folder`` is removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._socket: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<Watcher {self._pid} of {self._folder}>"

    def __enter__(self) -> Self:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", _PROGRAM, str(self._folder), str(KILL_GRACE)],
                {},
                # It holds nothing of ours open: who reads our output is not to wait for it.
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, other.fileno(), 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
                setsigmask=(),
            )
        return self

    def watch(self, pid: int) -> None:
        """From now on the command that this child is, or becomes, is ended with us."""
        if self._socket is None:
            raise RuntimeError("a watcher is entered before it watches")
        descriptor = os.pidfd_open(pid)
        try:
            socket.send_fds(self._socket, [str(pid).encode()], [descriptor])
        except BrokenPipeError:
            return  # somebody has killed it: the command does without
        finally:
            os.close(descriptor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        if self._socket is not None:
            self._socket.close()
