"""The logs of drivers and their executors: saved before their pods go, and read from wherever they are.

In mode CLIENT the driver's log is its holder's own, and isn't read: there are its executors' alone.
"""

import asyncio
import functools
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from sparkbroker.broker.adapters.kubernetes_provisioner import _executor_logs, _following, _logs
from sparkbroker.broker.adapters.kubernetes_provisioner._driver import IDLE_LOOK, KnownDriver, has_begun, has_ended
from sparkbroker.broker.adapters.kubernetes_provisioner._fleet import Fleet
from sparkbroker.broker.adapters.kubernetes_provisioner._names import check_driver_id, is_driver_id
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._seats import DRIVERS_LOGS, EXECUTORS_LOGS, Seats
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import LogChunk

LAST_WORDS: Final = 10.0
"""Seconds for which executors' logs are followed after their driver's has ended."""


class DriverLogs:
    """Kept in ``folder``, of the drivers of one fleet."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self._folder = folder
        self._fleet = fleet
        self._seats = Seats(DRIVERS_LOGS, "logs of drivers")
        self._executors_seats = Seats(EXECUTORS_LOGS, "logs of executors")

    def __repr__(self) -> str:
        return f"<DriverLogs {self._folder} {self._seats!r} {self._executors_seats!r}>"

    # -- what is kept

    def _path(self, driver_id: DriverId) -> Path:
        return self._folder / check_driver_id(driver_id) / "log"

    async def kept(self) -> list[DriverId]:
        """The drivers of which something is."""
        names = await asyncio.to_thread(_folders, self._folder)
        return [DriverId(name) for name in names if is_driver_id(name)]

    async def forget(self, driver_id: DriverId) -> None:
        """Remove all of it."""
        await asyncio.to_thread(shutil.rmtree, self._path(driver_id).parent, ignore_errors=True)

    async def save(self, known: KnownDriver, own: Pod) -> None:
        """The end of a driver's, once; a call that is cut off hasn't done it."""
        if has_begun(own) and not known.log_saved:
            known.log_saved = True
            try:
                known.log_tail = await _logs.save(self._fleet.cluster, own, known.token, self._path(known.id))
            except asyncio.CancelledError:
                known.log_saved = False
                raise

    async def save_all(self, known: KnownDriver, pods: Iterable[Pod]) -> None:
        """Of all that are about to be deleted, at the same time."""
        begun = [pod for pod in pods if has_begun(pod) and pod.metadata.name not in known.logs_saved]
        executors = [pod for pod in begun if not pod.is_driver]
        await asyncio.gather(
            *(self.save(known, pod) for pod in begun if pod.is_driver), self.save_executors(known, executors)
        )

    async def save_executors(self, known: KnownDriver, pods: Sequence[Pod]) -> None:
        """The ends of these; a call that is cut off hasn't done it."""
        names = {pod.metadata.name for pod in pods}
        known.logs_saved |= names
        try:
            if pods:
                await _executor_logs.save(self._fleet.cluster, pods, known.token, self._path(known.id).parent)
        except asyncio.CancelledError:
            known.logs_saved -= names
            raise

    def ended_executors(self, known: KnownDriver) -> list[Pod]:
        """Those whose logs have to be saved at once, since Spark deletes their pods; told once."""
        pods = self._fleet.pods(known)
        ended = [p for p in pods if not p.is_driver and has_ended(p) and p.metadata.name not in known.logs_saved]
        if known.asked:
            return []
        known.logs_saved |= {pod.metadata.name for pod in ended}
        return ended

    # -- reading

    async def read(
        self, known: KnownDriver, *, offset: int, tail_lines: int, follow: bool, executors: Mapping[str, int] | None
    ) -> AsyncGenerator[LogChunk, None]:
        """See the port."""
        own = self._driver_s(known, offset, 0 if offset else tail_lines, follow=follow)
        chunks = own if executors is None else self._merged(known, own, executors, tail_lines, follow=follow)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def _driver_s(
        self, known: KnownDriver, offset: int, tail_lines: int, *, follow: bool
    ) -> AsyncGenerator[LogChunk, None]:
        if known.client:
            while follow and self._fleet.lives(known):
                known.changed.clear()
                await known.until_changed()
            return
        pod = await self._pod_with_log(known, follow=follow)
        async with aclosing(self._log(known, pod, self._path(known.id), offset, tail_lines, follow=follow)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _log(
        self, known: KnownDriver, pod: Pod | None, path: Path, offset: int, tail_lines: int, *, follow: bool
    ) -> AsyncGenerator[LogChunk, None]:
        """Of a pod while it exists, and what was saved of it. Raise ProvisionerFailed where too many are read."""
        source = "" if path == self._path(known.id) else path.name
        if pod is not None:
            seats = self._seats if pod.is_driver else self._executors_seats
            over = functools.partial(self._ended_within, known, pod) if follow else None
            live = _following.live(self._fleet.cluster, pod, known.token, offset, tail_lines, over)
            async with seats.one(), aclosing(live) as pieces:
                async for data, after in pieces:
                    offset, tail_lines = after, 0
                    yield LogChunk(data, after, source)
        if pod is None or follow:
            async for data, after in _logs.read_saved(path, offset, tail_lines):
                yield LogChunk(data, after, source)

    async def _ended_within(self, known: KnownDriver, pod: Pod, seconds: float) -> bool:
        """See ``_following``, by what was last told."""
        try:
            async with asyncio.timeout(seconds):
                while any(
                    each.metadata.uid == pod.metadata.uid and not has_ended(each) for each in self._fleet.pods(known)
                ):
                    known.changed.clear()
                    await known.until_changed()
        except TimeoutError:
            return False
        return True

    async def _merged(
        self,
        known: KnownDriver,
        own: AsyncIterator[LogChunk],
        offsets: Mapping[str, int],
        tail_lines: int,
        *,
        follow: bool,
    ) -> AsyncGenerator[LogChunk, None]:
        """The driver's and its executors', also of those that come later; until the driver's has ended, and theirs."""
        merge, clock = _executor_logs.Merge(), self._fleet.clock
        merge.add("", own)
        over: float | None = None
        try:
            while True:
                ended = not merge.running("")
                joined = await self._join(merge, known, offsets, tail_lines, follow=follow)
                look = clock.monotonic() + IDLE_LOOK
                while (chunk := await merge.next(IDLE_LOOK)) is not None:
                    yield chunk
                    if clock.monotonic() > look:
                        break  # A driver that never falls silent hides no executor.
                # The last look comes after the driver's end: an executor may live shorter than the time between two.
                over = clock.monotonic() if over is None and ended else over
                if over is not None and ((not joined and not merge.busy) or clock.monotonic() - over > LAST_WORDS):
                    return
        finally:
            await merge.close()

    async def _join(
        self,
        merge: _executor_logs.Merge,
        known: KnownDriver,
        offsets: Mapping[str, int],
        tail_lines: int,
        *,
        follow: bool,
    ) -> bool:
        """Add the executors that have something to tell and aren't part of it yet. Return whether there were any."""
        folder = self._path(known.id).parent
        live, kept = self._executors_with_logs(known), await asyncio.to_thread(_executor_logs.saved, folder)
        new = [name for name in {**dict.fromkeys(kept), **live} if name not in merge]
        for name in new:
            path, offset = _executor_logs.path_of(folder, name), offsets.get(name, 0)
            tail = 0 if offset else tail_lines
            merge.add(name, self._log(known, live.get(name), path, offset, tail, follow=follow))
        return bool(new)

    def _executors_with_logs(self, known: KnownDriver) -> dict[str, Pod]:
        return {pod.metadata.name: pod for pod in self._fleet.pods(known) if not pod.is_driver and has_begun(pod)}

    async def _pod_with_log(self, known: KnownDriver, *, follow: bool) -> Pod | None:
        """Its pod, once it has a log; with ``follow`` that is waited for. None: there is none any more."""
        while known.namespace:
            pod = next((pod for pod in self._fleet.pods(known) if pod.is_driver), None)
            if pod is None or has_begun(pod):
                return pod
            if not follow:
                return None
            known.changed.clear()
            await known.until_changed()
        return None


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []
