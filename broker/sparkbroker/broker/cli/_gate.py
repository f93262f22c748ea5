"""What becomes the command of ``run``: it waits until somebody watches over it, so that no moment is without.

It is started as a file, without site-packages. Arguments: the number of a socket, and the command. One byte on the
socket opens the gate: this process becomes the command, which closes the socket, or sends the errno of why it can't. If
the socket ends instead, ``run`` has ended, and so does this.
"""

import os
import signal
import socket
import sys


def main() -> None:
    """Wait, and become the command."""
    number, *command = sys.argv[1:]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # it is nobody's Python yet
    with socket.socket(fileno=int(number)) as gate:
        gate.set_inheritable(False)
        if not gate.recv(1):
            return
        # Python ignores these two; a program expects them as they are by default.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        try:
            os.execvp(command[0], command)  # noqa: S606 - what the user typed
        except OSError as error:
            gate.send(str(error.errno).encode())


if __name__ == "__main__":
    main()
