"""The command that ``run`` starts: spawned, watched over, signalled, waited for.

With a controlling terminal it stays in our process group, so that the terminal's foreground group, Ctrl-C, Ctrl-Z and
``fg`` mean what they would without us. Without one it gets a group of its own, and signals go to all of it.
"""

import asyncio
import contextlib
import errno
import functools
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sparkbroker.broker.cli import _gate
from sparkbroker.broker.cli.exit_codes import CANNOT_EXECUTE, COMMAND_NOT_FOUND, SIGNAL_BASE, Exit
from sparkbroker.broker.cli.signals import Received

KILL_GRACE: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""
GATE_TIMEOUT: Final = 30.0
"""Seconds that the command's process may take until it is the command."""
_GATE: Final = str(Path(_gate.__file__).absolute())
_LONGEST_ERRNO: Final = 16


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, wherever its standard streams go."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(descriptor)
    return True


class Child:
    """A running command. Belongs to the event loop in which it was started."""

    def __init__(self, pid: int, *, own_group: bool) -> None:
        self.pid = pid
        self._own_group = own_group
        self._descriptor = os.pidfd_open(pid)
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._descriptor, self._ended)

    def __repr__(self) -> str:
        status = self._status.result() if self._status.done() else "running"
        return f"<Child {self.pid} [{status}]>"

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._descriptor)
        code = os.waitstatus_to_exitcode(status)
        if not self._status.done():
            self._status.set_result(code if code >= 0 else SIGNAL_BASE - code)

    async def wait(self) -> int:
        """Its exit status, or 128 + n if signal n ended it. Cancelling the wait doesn't end the command."""
        return await asyncio.shield(self._status)

    def send(self, number: int) -> None:
        """Send a signal to it, or to its whole group if it has its own."""
        if self._status.done():
            return
        with contextlib.suppress(ProcessLookupError):
            if self._own_group:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    def pass_on(self, received: Received) -> None:
        """Pass a signal on, unless the terminal has already sent it to the group that we share."""
        if self._own_group or not received.by_kernel:
            self.send(received.number)

    async def end(self) -> int:
        """Ask it to end, then make it: SIGTERM, KILL_GRACE seconds, SIGKILL. Its exit status."""
        self.send(signal.SIGTERM)
        # A command that is stopped (Ctrl-Z) acts on a signal only once it is continued.
        self.send(signal.SIGCONT)
        try:
            async with asyncio.timeout(KILL_GRACE):
                return await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.wait()


async def start(command: Sequence[str], environment: Mapping[str, str], began: Callable[[Child], None]) -> Child:
    """Start the command, once ``began`` has been called with what becomes it: from then on it takes signals.

    Raise Exit with 127 if there is none of this name, 126 if it can't be executed.
    """
    own_group = not has_terminal()
    gate, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with gate:
        with other:
            pid = _spawn(other, command, environment, own_group=own_group)
        child = Child(pid, own_group=own_group)
        began(child)
        try:
            number = await _open(gate)
        except TimeoutError as error:
            child.send(signal.SIGKILL)
            raise Exit(CANNOT_EXECUTE, f"{command[0]}: it did not start within {GATE_TIMEOUT:g}s") from error
        except (BrokenPipeError, ConnectionResetError):
            return child  # it has ended at the gate, by a signal: its status says so
        except OSError as error:
            child.send(signal.SIGKILL)
            raise Exit(CANNOT_EXECUTE, f"{command[0]}: it did not start: {error}") from error
        except asyncio.CancelledError:
            child.send(signal.SIGKILL)
            raise
    if not number:
        return child
    if int(number) == errno.ENOENT:
        raise Exit(COMMAND_NOT_FOUND, f"{command[0]}: there is no such command")
    raise Exit(CANNOT_EXECUTE, f"{command[0]}: it can't be executed: {os.strerror(int(number))}")


async def _open(gate: socket.socket) -> bytes:
    """Let the command begin. The errno of why it could not, or nothing. Raise TimeoutError, OSError."""
    gate.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(GATE_TIMEOUT):
        await loop.sock_sendall(gate, b"1")
        return await loop.sock_recv(gate, _LONGEST_ERRNO)


def _spawn(gate: socket.socket, command: Sequence[str], environment: Mapping[str, str], *, own_group: bool) -> int:
    # The child's end gets a number that nothing else in the child has.
    number = os.dup(gate.fileno())
    os.set_inheritable(number, True)
    arguments = [sys.executable, "-I", "-S", _GATE, str(number), *command]
    spawn = functools.partial(os.posix_spawn, sys.executable, arguments, dict(environment), setsigmask=())
    try:
        return spawn(setpgroup=0) if own_group else spawn()
    except OSError as error:
        raise Exit(CANNOT_EXECUTE, f"{command[0]}: it can't be executed: {error.strerror}") from error
    finally:
        os.close(number)
