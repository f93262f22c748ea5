"""Where the server listens. What gRPC would accept in silence, or refuse without saying why, is checked first."""

import os
import socket
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec

from sparkbroker.broker.domain.errors import BrokerError
from sparkbroker.broker.ports.authenticator import Authenticator
from sparkbroker.broker.rpc.certificates import ServedCertificate, Tls, TlsUnusable

MAX_SOCKET_PATH: Final = 107
"""Bytes, of sockaddr_un.sun_path less its end."""
LOOPBACK: Final = "127.0.0.1"
_PROBE_SECONDS: Final = 2.0


class ListenFailed(BrokerError):
    """The server can't listen there. Says where, why, and what would help."""

    reason = "LISTEN_FAILED"


class UnixListener(msgspec.Struct, frozen=True):
    """A unix socket in a folder that only the broker's user can enter."""

    path: Path
    authenticator: Authenticator

    def __str__(self) -> str:
        return f"unix:{self.path}"


class TcpListener(msgspec.Struct, frozen=True):
    """A TCP port (0: any free one). ``host`` is an address, or ``localhost``, which is 127.0.0.1; off loopback it needs
    ``tls``."""

    host: str
    port: int
    authenticator: Authenticator
    tls: Tls | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


Listener = UnixListener | TcpListener


def bind(server: Any, listener: Listener) -> str:
    """Bind a server that hasn't started, and return gRPC's name of the address. Raise ListenFailed."""
    if isinstance(listener, UnixListener):
        return _bind_unix(server, listener)
    return _bind_tcp(server, listener)


def _bind_unix(server: Any, listener: UnixListener) -> str:
    _prepare_folder(listener.path.parent)
    _prepare_socket(listener.path)
    target = f"unix:{listener.path}"
    try:
        server.add_insecure_port(target)
    except RuntimeError as error:
        raise ListenFailed(f"can't listen on {listener}: gRPC could not bind it ({error})") from error
    return target


def _prepare_folder(folder: Path) -> None:
    """Make it with mode 0700, or see that it has it: the folder is what keeps others from the socket."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ListenFailed(f"the socket's folder {folder} can't be made: {error.strerror or error}") from error
    if status.st_uid != os.geteuid():
        raise ListenFailed(f"the socket's folder {folder} belongs to another user (uid {status.st_uid}); use your own")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ListenFailed(f"the socket's folder {folder} is open to others (mode {mode:04o}); chmod 700 {folder}")


def _prepare_socket(path: Path) -> None:
    """Remove a socket that nobody listens on; gRPC would remove one in use as well."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ListenFailed(f"the socket's path {path} is longer than {MAX_SOCKET_PATH} bytes; choose a shorter one")
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ListenFailed(f"{path} exists and is not a socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise ListenFailed(f"can't tell whether {path} is in use: {error.strerror or error}") from error
    raise ListenFailed(f"another process listens on {path}: is a broker running already?")


def _bind_tcp(server: Any, listener: TcpListener) -> str:
    if listener.host == "localhost":
        # As for clients. gRPC would listen on what the name resolves to, or in silence on those of it that are free.
        listener = msgspec.structs.replace(listener, host=LOOPBACK)
    if listener.tls is None and not _is_loopback(listener.host):
        raise ListenFailed(
            f"{listener} can be reached by other machines and has no TLS; name a certificate and its key, or listen on "
            "127.0.0.1"
        )
    _probe_port(listener)
    try:
        if listener.tls is None:
            port = server.add_insecure_port(str(listener))
        else:
            port = server.add_secure_port(str(listener), _credentials(listener.tls))
    except RuntimeError as error:
        raise ListenFailed(f"can't listen on {listener}: gRPC could not bind it ({error})") from error
    return str(msgspec.structs.replace(listener, port=port))


def _probe_port(listener: TcpListener) -> None:
    """The operating system's reason, which gRPC doesn't tell. A race is left to gRPC's own error."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ListenFailed(
            f"can't listen on {listener}: {error.strerror or error}; end what uses it, or choose another port"
        ) from error


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    try:
        return ServedCertificate(tls).credentials()
    except TlsUnusable as error:
        raise ListenFailed(error.message) from error


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
