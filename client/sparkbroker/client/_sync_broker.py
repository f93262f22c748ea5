"""The blocking client: AsyncBroker through the process's portal. What it works with is loaded at its first use."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from sparkbroker.client._address import Address, resolve_address
from sparkbroker.client._errors import ClientClosed
from sparkbroker.client._retry import DEFAULT_PATIENCE

if TYPE_CHECKING:
    from sparkbroker.client._ask import Ask
    from sparkbroker.client._sync_engine import Engine
    from sparkbroker.client._sync_lease import Lease
    from sparkbroker.client._values import Progress
    from sparkbroker.v1 import broker_pb2 as pb


class Broker:
    """A connection to a broker, for blocking programs: from any thread, inside a running event loop (a notebook), and
    after a fork, where it connects anew and has no leases yet.

    Arguments as of AsyncBroker. Nothing is connected until it is used; ``with``, ``close`` and the interpreter's end
    release what is attached. Callbacks get the Lease, one at a time, in a thread of their own.
    """

    def __init__(
        self,
        url: str | Address | None = None,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        allow_plaintext: bool = False,
        patience: float = DEFAULT_PATIENCE,
        on_suspect: Callable[[Any], object] | None = None,
        on_resumed: Callable[[Any], object] | None = None,
        on_lost: Callable[[Any], object] | None = None,
        on_notice: Callable[[Any], object] | None = None,
    ) -> None:
        self._address = (
            url
            if isinstance(url, Address)
            else resolve_address(
                url, token=token, token_file=token_file, ca_file=ca_file, allow_plaintext=allow_plaintext
            )
        )
        self._patience = patience
        self._callbacks: dict[str, Callable[[Any], object]] = {
            name: callback
            for name, callback in {
                "on_suspect": on_suspect,
                "on_resumed": on_resumed,
                "on_lost": on_lost,
                "on_notice": on_notice,
            }.items()
            if callback is not None
        }
        self._closed = False

    def __repr__(self) -> str:
        if self._closed:
            return f"<Broker {self._address.url} [closed]>"
        engine = vars(self).get("_engine")
        return f"<Broker {self._address.url} [not connected]>" if engine is None else f"<{str(engine)[6:]}"

    @property
    def address(self) -> Address:
        """Where the broker is."""
        return self._address

    def _opened(self) -> "Engine":
        if self._closed:
            raise ClientClosed("the client is closed")
        from sparkbroker.client._sync_engine import Engine  # noqa: PLC0415  see the module

        # Atomic: two threads may be the first at once.
        made = Engine(self._address, patience=self._patience, callbacks=self._callbacks)
        engine: Engine = vars(self).setdefault("_engine", made)
        return engine

    def acquire(self, **ask: "Unpack[Ask]") -> "Lease":
        """Ask for a lease and return at once, not attached; see AsyncBroker.acquire."""
        return self._opened().acquire(ask)

    @contextmanager
    def lease(
        self,
        *,
        on_progress: "Callable[[Progress], object] | None" = None,
        timeout: float | None = None,
        **ask: "Unpack[Ask]",
    ) -> "Iterator[Lease]":
        """A lease that is READY and attached, for the body; then it is released."""
        with self.acquire(**ask) as lease:
            lease.wait_ready(on_progress, timeout=timeout)
            lease.attach()
            yield lease

    @contextmanager
    def session(
        self,
        *,
        on_progress: "Callable[[Progress], object] | None" = None,
        timeout: float | None = None,
        api: Literal["classic", "connect"] = "classic",
        app_name: str = "",
        **ask: "Unpack[Ask]",
    ) -> Iterator[Any]:
        """A Spark session on a lease of its own, for the body."""
        with (
            self.lease(on_progress=on_progress, timeout=timeout, **ask) as lease,
            lease.session(api=api, app_name=app_name) as spark,
        ):
            yield spark

    def open(self, name: str) -> "Lease":
        """A handle on a lease that exists, not attached; ``attach`` makes this client its user."""
        return self._opened().open(name)

    def get(self, name: str) -> "pb.Lease":
        """Read a lease."""
        return self._opened().call(lambda core: core.get(name))

    def list(self, filter: str = "", *, order_by: str = "", limit: int | None = None) -> "Sequence[pb.Lease]":
        """All leases that the filter selects, at most ``limit``, newest first."""
        return self._opened().call(lambda core: core.list(filter, order_by=order_by, limit=limit))

    def watch(self, name: str, after_revision: int = 0) -> "Iterator[pb.WatchLeaseResponse]":
        """Follow a lease to its end; resumes over broken connections."""
        return self._opened().iterate(lambda core: core.watch(name, after_revision))

    def watch_all(self, filter: str = "", after_revision: int = 0) -> "Iterator[pb.WatchLeasesResponse]":
        """Follow all leases that the filter selects, for ever."""
        return self._opened().iterate(lambda core: core.watch_all(filter, after_revision))

    def release(self, name: str, message: str = "") -> "pb.Lease":
        """Release a lease, whoever is attached to it."""
        return self._opened().call(lambda core: core.release(name, message))

    def force_release(self, name: str, message: str = "") -> "tuple[pb.Lease, str]":
        """For operators; see AsyncBroker.force_release."""
        return self._opened().call(lambda core: core.force_release(name, message))

    def queues(self) -> "Sequence[pb.Queue]":
        """The queues that the caller may use."""
        return self._opened().call(lambda core: core.queues())

    def profiles(self) -> "Sequence[pb.Profile]":
        """The profiles that the caller may use."""
        return self._opened().call(lambda core: core.profiles())

    def logs(
        self, name: str, *, offset: int = 0, tail_lines: int = 0, follow: bool = False, attempt: int = 0
    ) -> Iterator[bytes]:
        """A driver's log, also of a lease that has ended, in pieces of any size."""
        return self._opened().iterate(
            lambda core: core.logs(name, offset=offset, tail_lines=tail_lines, follow=follow, attempt=attempt)
        )

    def all_logs(
        self, name: str, *, tail_lines: int = 0, follow: bool = False, attempt: int = 0
    ) -> "Iterator[pb.StreamLogsResponse]":
        """The logs of a driver and of its executors; see AsyncBroker.all_logs."""
        return self._opened().iterate(
            lambda core: core.all_logs(name, tail_lines=tail_lines, follow=follow, attempt=attempt)
        )

    def close(self) -> None:
        """Release what is attached, within a bound, and disconnect. Idempotent."""
        self._closed = True
        engine = vars(self).get("_engine")
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
