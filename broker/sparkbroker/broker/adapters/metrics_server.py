"""The HTTP server of metrics and probes: a thread for each connection, and never more than a few of them.

Nobody needs a token here, and a probe that isn't answered gets the broker killed. So a new connection is always taken: if
there are too many, the oldest one that hasn't asked for anything yet is ended for it.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog

from sparkbroker.broker.ports.metrics import Limit

MAX_CONNECTIONS: Final = 32
"""That haven't asked yet; and again so many whose answer is under way."""
MAX_SCRAPES: Final = 2
"""At once: each costs the event loop a look at all leases."""
READ_SECONDS: Final = 5.0
"""For each piece of a request or an answer."""
SCRAPE_SECONDS: Final = 5.0
"""That a scrape waits for its turn."""
_PAUSE: Final = 0.1
"""Seconds until the next try to accept, if the process has no descriptor or thread left."""

log = structlog.get_logger()


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves ``app`` from ``start`` to ``stop``. ``limited`` is told the limit that was hit; by the server's own thread.

    Raise OSError if it can't listen there.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, app: WSGIApplication, limited: Callable[[Limit], object]) -> None:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        self._limited = limited
        self._lock = Lock()
        self._waiting: dict[socket.socket, None] = {}
        self._asked: set[socket.socket] = set()
        super().__init__((str(address[0]), port), _Handler)
        self.set_app(app)
        self._thread = Thread(target=self.serve_forever, name="metrics", daemon=True)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._waiting) + len(self._asked)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks for at most half a second."""
        self.shutdown()
        self.server_close()
        self._thread.join(READ_SECONDS)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE)  # No descriptor is left; the connection waits, and would be seen again at once.
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._waiting[request] = None
            oldest = next(iter(self._waiting)) if len(self._waiting) > MAX_CONNECTIONS else None
            if oldest is not None:
                del self._waiting[oldest]
        if oldest is not None:
            self._limited("metrics_connections")
            _end(oldest)
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:
            log.warning("metrics.no_thread", message=str(error))
            self.shutdown_request(request)

    def may_ask(self, request: socket.socket) -> bool:
        """Its request is complete. False: it was ended meanwhile, or too many answers are under way."""
        with self._lock:
            if request not in self._waiting or len(self._asked) >= MAX_CONNECTIONS:
                return False
            del self._waiting[request]
            self._asked.add(request)
            return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._waiting.pop(request, None)
            self._asked.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asks may go away, or be ended, at any time."""
        log.debug("metrics.not_answered", exc_info=sys.exception())


class _Handler(WSGIRequestHandler):
    timeout = READ_SECONDS
    server: MetricsServer

    def parse_request(self) -> bool:
        return super().parse_request() and self.server.may_ask(self.request)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def few_at_once(app: WSGIApplication) -> WSGIApplication:
    """``app`` for MAX_SCRAPES at a time; whose turn doesn't come in time gets 503."""
    turns = BoundedSemaphore(MAX_SCRAPES)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not turns.acquire(timeout=SCRAPE_SECONDS):
            busy = HTTPStatus.SERVICE_UNAVAILABLE
            start_response(f"{busy.value} {busy.phrase}", [("Content-Type", "text/plain")])
            return [b"too many scrapes at once\n"]
        try:
            return app(environ, start_response)
        finally:
            turns.release()

    return answer


def _end(request: socket.socket) -> None:
    """Its thread, which waits for the request, sees the end of it."""
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("metrics.gone")
