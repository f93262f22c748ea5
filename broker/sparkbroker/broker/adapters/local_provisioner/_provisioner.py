"""The local provisioner: composition of the folder, the processes and the launcher behind the port."""

import asyncio
import functools
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec
import structlog

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.broker_key import driver_token, owner_mark
from sparkbroker.broker.adapters.changes import Changes
from sparkbroker.broker.adapters.local_provisioner import _procfs
from sparkbroker.broker.adapters.local_provisioner._driver import USER_ID, LocalDriver
from sparkbroker.broker.adapters.local_provisioner._folder import Intent, Process, Readiness
from sparkbroker.broker.adapters.local_provisioner._following import Logs
from sparkbroker.broker.adapters.local_provisioner._launch import TOKEN_VARIABLE, Launcher, LaunchPlan, Place
from sparkbroker.broker.adapters.local_provisioner._machine import machine_capacity
from sparkbroker.broker.adapters.local_provisioner._scratch import find_scratch, private_folder
from sparkbroker.broker.adapters.local_provisioner._spark import SparkLauncher
from sparkbroker.broker.adapters.local_provisioner._system import refusals_told
from sparkbroker.broker.adapters.local_provisioner._verdict import is_current, unreadable
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import (
    ClientAccess,
    ConnectEndpoint,
    DriverRequest,
    Handle,
    LogChunk,
    Observation,
    Phase,
)

log = structlog.get_logger()

POOL: Final = "local"
STOP_GRACE: Final = 5.0
LOG_LIMIT: Final = 64 << 20
_SESSION_CALL_TIMEOUT: Final = 5.0
_ADVANCE_BUDGET: Final = 2.0
_STOP_POLL: Final = 0.05
_SHORTEST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.25
_PAUSE_GROWTH: Final = 1.2
_CLOSE_TIMEOUT: Final = 10.0
_SHIM: Final = str(Path(__file__).with_name("_shim.py"))
_DRIVER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class LocalProvisioner:
    """Drivers as processes of this machine. See the package.

    ``folder`` holds a folder for each driver; ``cache`` what brokers may share (archives, packages); ``scratch`` what
    Spark writes while it runs, by default in the system's temporary folder; ``umask`` is the drivers', by default this
    process's. ``key`` makes the tokens.
    """

    name = "local"
    always_confirms = (
        "its driver's processes are on the broker's own machine, which always knows of them; end them there"
    )

    def __init__(
        self,
        *,
        folder: Path,
        cache: Path,
        key: bytes,
        embedded: bool,
        clock: Clock,
        scratch: Path | None = None,
        umask: int = -1,
        launcher: Launcher | None = None,
        stop_grace: float = STOP_GRACE,
        log_limit: int = LOG_LIMIT,
    ) -> None:
        self._folder = folder
        self._key = key
        self._owner = owner_mark(key)
        self._embedded = embedded
        self._clock = clock
        self._scratch_given = scratch
        self._scratch = Path()
        """Known once it is started."""
        self._umask = umask
        self._launcher: Launcher = launcher if launcher is not None else SparkLauncher(cache, clock)
        self._stop_grace = stop_grace
        self._log_limit = log_limit
        self._drivers: dict[DriverId, LocalDriver] = {}
        self._changes = Changes()
        self._logs = Logs()
        self._attending: dict[DriverId, asyncio.Task[None]] = {}
        """Owned: each ends when its driver is up or gone, and all end in ``close``."""
        self._closing = False
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="look")
        """For the look at everything alone, which opens admission: it waits for nobody else's work."""

    def __repr__(self) -> str:
        starting = sum(not driver.settled for driver in self._drivers.values())
        return f"<LocalProvisioner [{len(self._drivers)} drivers known, {starting} starting]>"

    async def start(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._scratch_given is not None:
                private_folder(self._scratch_given)
            self._scratch = (self._scratch_given or find_scratch(self._owner)) / self._owner
            private_folder(self._scratch)
            await self._launcher.start()
        except OSError as error:
            raise ProvisionerFailed(
                f"the local provisioner can't write its folders: {error}", retryable=False
            ) from error

    def capacity(self) -> dict[str, Resources]:
        return {POOL: machine_capacity()}

    def unusable(self, profile: Profile) -> str:
        return self._launcher.unusable(profile)

    @refusals_told("the drivers can't be looked for")
    async def inventory(self) -> list[Observation]:
        marked = await asyncio.get_running_loop().run_in_executor(self._looks, _procfs.owned, self._owner)
        running = {DriverId(environment.get(_procfs.DRIVER_MARK, "")) for environment in marked.values()}
        found = running | {DriverId(path.name) for path in self._folder.iterdir() if path.is_dir()}
        result = []
        for driver_id in sorted(found):
            if _DRIVER_ID.fullmatch(driver_id) is None:
                continue  # not a name that we give
            await asyncio.sleep(0)  # records are kept for days, of many drivers: others are answered in between
            driver = self._driver(driver_id)
            # All of /proc was read once, and isn't for each that has ended.
            try:
                seen = self._look(driver, unmarked=driver_id not in running)
            except ProvisionerFailed as error:
                # Nothing of one driver holds up the look at the others. What it was charged for stays charged.
                log.warning("driver.unreadable", driver=driver_id, message=error.message)
                if driver_id in running:
                    result.append(unreadable(driver_id, marked.values(), error.message))
                continue
            self._attend(driver)
            if seen.phase is Phase.ABSENT and driver.folder.read(Intent) is None:
                driver.folder.remove()  # was being made or removed when its broker ended
                continue
            result.append(seen)
        return result

    @refusals_told("a driver can't be started")
    async def create(self, request: DriverRequest) -> Observation:
        driver = self._driver(request.driver_id)
        async with driver.lock:
            intent = driver.folder.read(Intent)
            if intent is not None and intent.fingerprint != request.profile_fingerprint:
                raise ProvisionerFailed(
                    f"driver {request.driver_id} exists with the profile fingerprint {intent.fingerprint}, "
                    f"not {request.profile_fingerprint}",
                    retryable=False,
                )
            seen = driver.look()
            if intent is not None and (seen.phase is not Phase.ABSENT or driver.was_stopped):
                return seen
            scratch = self._scratch / request.driver_id
            place = Place(arguments=driver.folder.arguments, scratch=scratch)
            plan = await self._launcher.plan(request, place, functools.partial(self._changes.note, driver.id))
            try:
                self._launch(driver, request, plan, scratch)
            except OSError as error:
                raise ProvisionerFailed(f"the driver's process can't be started: {error}", retryable=True) from error
            seen = driver.look()
            self._attend(driver)
            return seen

    def _launch(self, driver: LocalDriver, request: DriverRequest, plan: LaunchPlan, scratch: Path) -> None:
        """Without an await: a cancelled create has done all of it or nothing. It takes some milliseconds."""
        driver.folder.path.mkdir(mode=0o700, exist_ok=True)
        for part in (scratch, scratch / "local"):
            private_folder(part)
        if plan.arguments:
            driver.folder.write_bytes("arguments", plan.arguments)
        driver.folder.write(
            Intent(
                driver_id=request.driver_id,
                attempt=request.attempt,
                profile=request.profile.name,
                fingerprint=request.profile_fingerprint,
                target=request.target,
                scratch=str(scratch),
            )
        )
        marks = {
            _procfs.DRIVER_MARK: request.driver_id,
            _procfs.OWNER_MARK: self._owner,
            _procfs.CHARGE_MARK: ",".join(f"{name}={amount}" for name, amount in request.target.quantities.items()),
        }
        message = {
            "folder": str(driver.folder.path),
            "scratch": str(scratch),
            "driver_id": request.driver_id,
            "owner": self._owner,
            "embedded": self._embedded,
            "log_limit": self._log_limit,
            "argv": plan.argv,
            "env": {**plan.environment, **marks, TOKEN_VARIABLE: driver.token},
        }
        theirs, ours = os.pipe()
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", _SHIM],
                env=marks,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                umask=self._umask,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        driver.launched(child, ours, msgspec.json.encode(message) + b"\n", keep_pipe=self._embedded)

    @refusals_told("a driver can't be looked at")
    async def observe(self, driver_id: DriverId, handle: Handle, profile: Profile) -> Observation:
        driver = self._driver(driver_id)
        seen = self._look(driver)
        self._attend(driver)
        if seen.phase is Phase.ABSENT:
            self._drivers.pop(driver_id, None)
        return seen

    def _look(self, driver: LocalDriver, *, unmarked: bool = False) -> Observation:
        try:
            return driver.look(unmarked=unmarked)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise ProvisionerFailed(f"driver {driver.id} can't be looked at: {error}", retryable=True) from error

    @refusals_told("a driver can't be ended")
    async def delete(self, driver_id: DriverId, handle: Handle, *, force: bool) -> None:
        driver = self._driver(driver_id)
        if driver.evidence().alive:
            driver.stop(force=force, grace=self._stop_grace)
        self._look(driver)
        self._attend(driver)
        self._changes.note(driver_id)

    async def abandon(self, driver_id: DriverId, handle: Handle) -> str:
        raise ProvisionerFailed(self.always_confirms, retryable=False)

    @refusals_told("a driver can't be forgotten")
    async def forget(self, driver_id: DriverId) -> None:
        driver = self._driver(driver_id)
        if driver.evidence(thorough=True).alive:
            raise ProvisionerFailed(f"driver {driver_id} still has processes: it can't be forgotten", retryable=True)
        driver.look()
        await asyncio.to_thread(driver.folder.remove)
        self._drivers.pop(driver_id, None)

    @refusals_told("a driver can't be looked at")
    async def endpoint(self, driver_id: DriverId, handle: Handle, profile: Profile) -> ConnectEndpoint:
        driver = self._driver(driver_id)
        readiness = driver.folder.read(Readiness)
        if readiness is None or self._look(driver).phase is not Phase.READY:
            raise ProvisionerFailed(f"driver {driver_id} is not ready", retryable=True)
        versions = self._launcher.versions(profile)
        server = driver.server(readiness.port)
        return ConnectEndpoint(
            endpoint=f"sc://{server.target}/",
            headers=server.headers,
            user_id=USER_ID,
            ui_url=readiness.ui_url,
            python_version=versions.python,
            spark_version=versions.spark,
        )

    async def client_access(self, request: DriverRequest, handle: Handle) -> ClientAccess:
        raise ProvisionerFailed("the mode CLIENT needs a profile of the provisioner kubernetes", retryable=False)

    @refusals_told("a session can't be ended")
    async def end_session(self, driver_id: DriverId, handle: Handle, profile: Profile, session_id: str) -> None:
        driver = self._driver(driver_id)
        readiness, process = driver.folder.read(Readiness), driver.folder.read(Process)
        if readiness is None or not is_current(readiness, process) or not driver.evidence().driver_alive:
            return
        try:
            await spark_connect.end_session(driver.server(readiness.port), session_id, _SESSION_CALL_TIMEOUT)
        except spark_connect.ConnectCallFailed as error:
            if driver.evidence().driver_alive:
                raise ProvisionerFailed(
                    f"a session of driver {driver_id} can't be ended: {error}", retryable=True
                ) from error

    async def logs(
        self,
        driver_id: DriverId,
        handle: Handle,
        *,
        offset: int,
        tail_lines: int,
        follow: bool,
        executors: Mapping[str, int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        driver = self._driver(driver_id)
        chunks = self._logs.read(driver, offset=offset, tail_lines=tail_lines, follow=follow)
        async with refusals_told(f"the log of driver {driver_id} can't be read"), aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def wait_for_change(self) -> set[DriverId]:
        return await self._changes.wait()

    def _attend(self, driver: LocalDriver) -> None:
        """See to it that a driver which is coming up or going down gets there."""
        if not driver.settled and driver.id not in self._attending and not self._closing:
            task = asyncio.get_running_loop().create_task(self._bring_along(driver), name=f"driver {driver.id}")
            self._attending[driver.id] = task
            task.add_done_callback(lambda _: self._attending.pop(driver.id, None))

    async def _bring_along(self, driver: LocalDriver) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            try:
                seen = self._look(driver)
                if driver.settled:
                    self._settle(driver, seen)
                    return
                if seen.phase is Phase.STOPPING:
                    driver.kill_if_due(self._clock.monotonic())
                else:
                    await driver.advance(_ADVANCE_BUDGET)
            except (OSError, ValueError, ProvisionerFailed) as error:
                driver.trouble = str(error)
            await asyncio.sleep(0 if driver.settled else pause)
            pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)

    def _settle(self, driver: LocalDriver, seen: Observation) -> None:
        self._changes.note(driver.id)
        if seen.phase is Phase.READY:
            self._launcher.driver_ready()

    async def close(self) -> None:
        self._closing = True
        self._looks.shutdown(wait=False, cancel_futures=True)
        await self._launcher.close()
        await self._logs.close()
        tasks = list(self._attending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for driver in self._drivers.values():
            driver.let_go()
        if self._embedded:
            await self._wait_for_end()
        for driver in self._drivers.values():
            driver.disown()

    async def _wait_for_end(self) -> None:
        """Their shims see the end of the pipe and end them; what doesn't end in time is killed."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                while any(driver.evidence(thorough=True).alive for driver in self._drivers.values()):  # noqa: ASYNC110 (an adopted process tells nobody of its end)
                    await asyncio.sleep(_STOP_POLL)
        except TimeoutError:
            for driver in self._drivers.values():
                driver.kill()

    def _driver(self, driver_id: DriverId) -> LocalDriver:
        if _DRIVER_ID.fullmatch(driver_id) is None:
            raise ProvisionerFailed(f"{driver_id!r} is no driver id of ours", retryable=False)
        driver = self._drivers.get(driver_id)
        if driver is None:
            token = driver_token(self._key, driver_id)
            driver = LocalDriver(
                driver_id,
                self._folder / driver_id,
                owner=self._owner,
                token=token,
                clock=self._clock,
                changed=self._changes.note,
            )
            self._drivers[driver_id] = driver
        return driver
