"""The certificate of a listener, which follows its files: whoever connects is served what they hold by then.

Connections that are open go on with the certificate of their handshake.
"""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import grpc
import msgspec
import structlog

from sparkbroker.broker.domain.errors import BrokerError
from sparkbroker.broker.file_changes import FollowedFiles
from sparkbroker.client.file_text import without_mark

log = structlog.get_logger()


class Tls(msgspec.Struct, frozen=True):
    """PEM files: the certificate (with its chain), and its key. They may be replaced while they are served."""

    certificate: Path
    key: Path


class TlsUnusable(BrokerError):
    """The certificate and its key can't be served. Says which files, and why."""

    reason = "TLS_UNUSABLE"


class ServedCertificate:
    """A certificate and its key, read as a pair. Raise TlsUnusable if the files can't be used.

    Files that can't be used later are told once for each change, and the pair before is served until they can be.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._files = FollowedFiles(tls.certificate, tls.key)
        self._lock = Lock()
        self._first = self._files.read(self._load)

    def __repr__(self) -> str:
        return f"<ServedCertificate {self._files!r}>"

    def credentials(self) -> grpc.ServerCredentials:
        """For one port of one server."""
        return grpc.dynamic_ssl_server_credentials(self._first, self.renewed)  # type: ignore[arg-type]  # the stubs lack None

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """The pair to serve from now on, once after each change; None: the one before.

        gRPC asks before each handshake, from threads of its own, and doesn't say that it asks one at a time.
        """
        with self._lock:
            if not self._files.changed():
                return None
            try:
                configuration = self._files.read(self._load)
            except TlsUnusable as error:
                if self._files.news:
                    log.error(  # noqa: TRY400 - the message says it all; a traceback would hide it
                        "tls.not_renewed",
                        message=error.message,
                        hint="the certificate read before is still served; write a certificate and the key that it is "
                        "for, both in PEM: they are tried at each new connection",
                    )
                return None
            log.info("tls.renewed", certificate=str(self._tls.certificate))
            return configuration

    def _load(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = _read_pair(self._tls)
        return grpc.ssl_server_certificate_configuration([(key, certificate)])


def _read_pair(tls: Tls) -> tuple[bytes, bytes]:
    """Raise TlsUnusable for files that are missing, no PEM, or of different keys; gRPC would fail at a handshake."""
    try:
        certificate, key = (without_mark(path.read_bytes()) for path in (tls.certificate, tls.key))
        with _as_file(certificate) as certificate_file, _as_file(key) as key_file:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate_file, key_file, password=_no_password)
    except ssl.SSLError as error:
        why = error.reason or str(error)
        raise TlsUnusable(f"TLS certificate {tls.certificate} and key {tls.key} can't be used: {why}") from error
    except OSError as error:
        names = f"{tls.certificate} or {tls.key}"
        raise TlsUnusable(f"TLS file {error.filename or names} can't be read: {error.strerror or error}") from error
    return certificate, key


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path in memory: ssl takes files only, and what is checked must be what was read, whatever was written since."""
    descriptor = os.memfd_create("sparkbroker-tls")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _no_password() -> bytes:
    """A key with a password must fail, and not ask at a terminal."""
    return b""
